"""The forms a journal has on disk: Docker's rotated files and our segments; who has read them, and what goes."""
