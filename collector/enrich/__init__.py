"""Puts the container's metadata beside its lines."""
