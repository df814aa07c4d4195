"""Version 1 controllers, a file each."""
