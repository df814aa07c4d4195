"""The store's files: segments as they are written, and as they are sealed for search.

A raw segment takes frames as blocks come (``raw``); when it is full it is rewritten into a sealed one
(``sealing``, ``sealed``): merged per source, compressed tighter, with a filter per chunk. ``catalog`` keeps
what is small and changes: sources, cursors, checkpoints. Nothing here knows queries or exporters.
"""
