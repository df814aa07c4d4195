"""Slow counters of containers: groups that cost too much for every second, read in lanes of their own."""
