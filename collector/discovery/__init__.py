"""Finds containers: Engine API sockets, cgroup paths."""
