"""How much disk each container uses: its writable layer, its log, its volumes."""
