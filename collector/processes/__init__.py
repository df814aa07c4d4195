"""Processes, threads, open files and connections of containers and of the host, read when somebody asks."""
