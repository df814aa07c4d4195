"""The json-file driver: Docker's own files, which are the journal as well.

``<id>-json.log`` and its older generations are byte for byte what Docker Engine leaves. How files are rotated
and resumed is ``logdrivers/journals/rotated_journal.py``, the record format ``codecs/json_file.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from logdrivers.attributes import check_attributes, tagged_attributes
from logdrivers.codecs.json_file import Encoder
from logdrivers.driver import Info, OptionError
from logdrivers.journals.json_file_records import JsonFileRecords
from logdrivers.journals.rotated_journal import RotatedJournal, Rotation
from logdrivers.journals.rotated_reader import RotatedReader
from logdrivers.options import (
    EXTRA_OPTIONS,
    check_known,
    parse_bool,
    parse_bytes_decimal,
    parse_int,
)

__all__ = ["JsonFileDriver", "log_path", "parse_rotation"]


def parse_rotation(options: Mapping[str, str]) -> Rotation:
    """``max-size``, ``max-file`` and ``compress``. Raises OptionError in Docker's words."""
    size, count, compress = -1, 1, False
    if "max-size" in options:
        size = parse_bytes_decimal(options["max-size"])
        if size <= 0:
            raise OptionError("max-size must be a positive number")
    if "max-file" in options:
        count = parse_int(options["max-file"])
        if count < 1:
            raise OptionError("max-file cannot be less than 1")
    if "compress" in options:
        compress = parse_bool(options["compress"])
        if compress and (count < 2 or size < 0):
            raise OptionError("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(size, count, compress)


def log_path(info: Info) -> Path:
    """The file being written, where Docker has it in the container's log directory."""
    return info.directory / f"{info.container_id}-json.log"


class JsonFileDriver:
    """Docker's default driver: lines stay on the host, in files."""

    name = "json-file"

    def validate(self, options: Mapping[str, str]) -> None:
        """Raise OptionError in Docker's words for an option it refuses."""
        check_known(self.name, options, EXTRA_OPTIONS | {"max-size", "max-file", "compress"})
        parse_rotation(options)
        check_attributes(options)

    def journal(self, info: Info) -> RotatedJournal:
        """Open (or make) the container's log file for writing."""
        attrs = tagged_attributes(info)
        info.directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        return RotatedJournal(log_path(info), Encoder(attrs), JsonFileRecords(), parse_rotation(info.options))

    def reader(self, info: Info) -> RotatedReader:
        """Open the log files for reading; there need not be any yet."""
        return RotatedReader(log_path(info), parse_rotation(info.options).files, JsonFileRecords())

    def sink(self, info: Info) -> None:
        """There is none: lines stay on the host."""
        return
