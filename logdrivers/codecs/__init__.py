"""The formats of the log path, bytes in and bytes out, both directions in one file each."""
