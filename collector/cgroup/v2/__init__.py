"""Version 2 controllers, a file each."""
