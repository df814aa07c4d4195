"""Taffrail's own log: one line per event on standard error, as text for people or JSON for machines."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from taffrail.config import LogConfig

__all__ = ["setup_logging"]


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: ``@timestamp``, ``log.level``, ``log.logger``, ``message``, ECS's names."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "log.logger": record.name,
            "process.pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["error.stack_trace"] = self.formatException(record.exc_info)
        return orjson.dumps(event).decode()


class _TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO  collector.store: message``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = f"{moment.removesuffix('+00:00')}Z {record.levelname:<7} {record.name}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup_logging(config: LogConfig) -> None:
    """Send everything of ``config.level`` and above to standard error in ``config.format``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if config.format == "json" else _TextFormatter())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp.access", "elastic_transport", "urllib3", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
