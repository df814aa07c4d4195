"""The page and the API behind it and behind the command line."""
