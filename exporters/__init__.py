"""Carries counters and lines to the tools people already use."""
