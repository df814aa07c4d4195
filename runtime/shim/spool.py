"""What a shim keeps between pipes and journal: ``logdrivers/spool.py`` and ``logdrivers/ledger.py``."""

from logdrivers.ledger import Intent, Kind, Ledger, OpenLine
from logdrivers.spool import Spool

__all__ = ["Intent", "Kind", "Ledger", "OpenLine", "Spool"]
