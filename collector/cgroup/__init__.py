"""Cgroup counters: where the files are (layout) and what they say (v1, v2)."""
