"""Measurements beside the peers; see bench/README.md."""
