"""The copier of a shim, which is that of the log plugin too: ``logdrivers/copier.py``."""

from logdrivers.copier import Copier, Piece, Splitter

__all__ = ["Copier", "Piece", "Splitter"]
