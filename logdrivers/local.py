"""The ``local`` driver: Docker's compact files, rotated and compressed by default, which are the journal as well.

``local-logs/container.log`` and its older generations are byte for byte what Docker Engine leaves. How files
are rotated and resumed is ``logdrivers/journals/rotated_journal.py``, the record format ``codecs/local.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from logdrivers.attributes import check_attributes, tagged_attributes
from logdrivers.codecs.local import LocalEncoder, LocalRecords
from logdrivers.driver import Info, OptionError
from logdrivers.journals.rotated_journal import RotatedJournal, Rotation
from logdrivers.journals.rotated_reader import RotatedReader
from logdrivers.options import (
    EXTRA_OPTIONS,
    check_known,
    parse_bool,
    parse_bytes_decimal,
    parse_int,
)

__all__ = ["LocalDriver", "local_log_path", "local_reader", "parse_local_rotation"]

_DEFAULT_SIZE = 20 << 20
_DEFAULT_FILES = 5


def parse_local_rotation(options: Mapping[str, str]) -> Rotation:
    """``max-size`` (20 MiB; 0 is a file per record), ``max-file`` (5), ``compress`` (true).

    Raises OptionError in Docker's words.
    """
    size, count, compress = _DEFAULT_SIZE, _DEFAULT_FILES, True
    if "max-size" in options:
        try:
            size = parse_bytes_decimal(options["max-size"])
        except OptionError as error:
            raise OptionError(f"invalid value for max-size: {options['max-size']}: {error}") from None
    if "max-file" in options:
        try:
            count = parse_int(options["max-file"])
        except OptionError as error:
            raise OptionError(f"invalid value for max-file: {options['max-file']}: {error}") from None
    if "compress" in options:
        try:
            compress = parse_bool(options["compress"])
        except OptionError as error:
            raise OptionError(f"error reading compress log option: {error}") from None
    if count < 0:
        raise OptionError("max file count cannot be less than 0")
    if compress and count <= 1:
        raise OptionError("compression cannot be enabled when max file count is 1")
    return Rotation(size, count, compress)


def local_log_path(directory: Path) -> Path:
    """The file being written, where Docker has it in the container's log directory."""
    return directory / "local-logs" / "container.log"


def local_reader(directory: Path, options: Mapping[str, str]) -> RotatedReader:
    """Open the log files in a container's log directory for reading; there need not be any yet."""
    return RotatedReader(local_log_path(directory), parse_local_rotation(options).files, LocalRecords())


class LocalDriver:
    """Docker's ``local``: lines stay on the host, in small files."""

    name = "local"

    def validate(self, options: Mapping[str, str]) -> None:
        """Raise OptionError in Docker's words for an option it refuses."""
        check_known(self.name, options, EXTRA_OPTIONS | {"max-size", "max-file", "compress"})
        parse_local_rotation(options)
        check_attributes(options)

    def journal(self, info: Info) -> RotatedJournal:
        """Open (or make) the container's log file for writing."""
        attrs = tagged_attributes(info)
        path = local_log_path(info.directory)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return RotatedJournal(path, LocalEncoder(attrs), LocalRecords(), parse_local_rotation(info.options))

    def reader(self, info: Info) -> RotatedReader:
        """Open the log files for reading; there need not be any yet."""
        return local_reader(info.directory, info.options)

    def sink(self, info: Info) -> None:
        """There is none: lines stay on the host."""
        return
