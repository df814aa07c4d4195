"""The log path: blocks of lines, the journal they are written to first, and the drivers that carry them on."""
