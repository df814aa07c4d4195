"""``taffrail top``: from a host's containers to the thread that burns, by keyboard, and back in time."""
