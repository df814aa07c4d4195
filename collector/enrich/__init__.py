"""Puts the container's metadata beside its lines."""

from collector.enrich.sources import Sources

__all__ = ["Sources"]
