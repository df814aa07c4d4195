"""The fluentd driver's options: Docker's in Docker's words, and ours beside them, each to a typed value.

What they do is ``logdrivers/fluentd.py`` and ``logdrivers/sinks/fluentd.py``. Secrets may stand in files, which
are read for each connection; no message says what is in them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from logdrivers.codecs.forward_handshake import Credentials
from logdrivers.driver import OptionError
from logdrivers.options import go_quote, parse_bool, parse_bytes_binary, parse_duration
from logdrivers.sinks.tls import Tls, parse_tls, tls_options

__all__ = [
    "FLUENTD_OPTIONS",
    "FluentdAddress",
    "SecretSource",
    "check_options",
    "flag",
    "message_mode",
    "parse_address",
    "seconds",
    "secrets",
    "tls",
]

_FLAGS = ("fluentd-async", "fluentd-async-connect", "fluentd-sub-second-precision", "fluentd-request-ack")
_DURATIONS = ("fluentd-retry-wait", "fluentd-write-timeout", "fluentd-read-timeout")
_INTERVAL = "fluentd-async-reconnect-interval"
_MODE = "fluentd-message-mode"
_MODES = ("message", "packed", "compressed")
_KEY = "fluentd-shared-key"
_USER = "fluentd-username"
_PASSWORD = "fluentd-password"
_HOSTNAME = "fluentd-self-hostname"
_SECURITY = (_KEY, f"{_KEY}-file", _USER, _PASSWORD, f"{_PASSWORD}-file", _HOSTNAME)
#: Every option of the driver beside those that all drivers have.
FLUENTD_OPTIONS = frozenset(
    {
        "fluentd-address",
        "fluentd-buffer-limit",
        "fluentd-max-retries",
        _INTERVAL,
        _MODE,
        *_FLAGS,
        *_DURATIONS,
        *_SECURITY,
        *tls_options("fluentd"),
    }
)


@dataclass(frozen=True, slots=True)
class FluentdAddress:
    """Where messages go: ``tcp`` or ``tls`` with host and port, ``unix`` with a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.scheme == "unix" else f"{self.scheme}://{self.host}:{self.port}"


def parse_address(text: str) -> FluentdAddress:
    """The ``fluentd-address`` option; ``tcp``, 127.0.0.1 and 24224 are filled in. Raises OptionError."""
    try:
        return _parse_url(text if "://" in text else "tcp://" + text)
    except ValueError as error:
        raise OptionError(f"invalid fluentd-address ({text}): {error}") from None


def _parse_url(text: str) -> FluentdAddress:
    url = urlsplit(text)
    if url.scheme == "unix":
        if not url.path.lstrip("/"):
            raise ValueError("path is empty")
        return FluentdAddress("unix", path=url.path)
    if url.scheme not in ("tcp", "tls"):
        raise ValueError(f"unsupported scheme: '{url.scheme}'")
    if url.path:
        raise ValueError("should not contain a path element")
    if re.search(r"[\s<>\"]", url.netloc):
        raise ValueError("invalid character in host name")
    if url.hostname and ":" in url.netloc.rpartition(":")[0] and not url.netloc.startswith("["):
        raise ValueError("too many colons in address")
    return FluentdAddress(url.scheme, url.hostname or "127.0.0.1", 24224 if url.port is None else url.port)


def check_options(options: Mapping[str, str]) -> None:
    """Refuse values that Docker refuses, in its words, and of ours what cannot work. Raises OptionError."""
    address = parse_address(options.get("fluentd-address", ""))
    if options.get("fluentd-buffer-limit"):
        parse_bytes_binary(options["fluentd-buffer-limit"])
    for key in _DURATIONS:
        if options.get(key):
            parse_duration(options[key])
    _check_retries(options.get("fluentd-max-retries", ""))
    if "fluentd-async" in options and "fluentd-async-connect" in options:
        # Docker's words have no last quotation mark.
        raise OptionError(
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect"
        )
    for key in _FLAGS:
        flag(options, key)
    _check_interval(options.get(_INTERVAL, ""))
    message_mode(options)
    source = secrets(options, "")
    if source is not None:
        source.read()
    tls(options, address, check_files=True)


def flag(options: Mapping[str, str], key: str) -> bool:
    """A flag; one that is missing or empty is not set."""
    return bool(options.get(key)) and parse_bool(options[key])


def seconds(options: Mapping[str, str], key: str, default: float) -> float:
    """A duration's seconds; one that is missing, zero or less is ``default``."""
    given = parse_duration(options[key]) if options.get(key) else 0.0
    return given if given > 0 else default


def _check_retries(text: str) -> None:
    if not text:
        return
    if not re.fullmatch(r"[0-9]+", text):
        raise OptionError(f"strconv.ParseUint: parsing {go_quote(text)}: invalid syntax")
    if int(text) > 2**31 - 1:
        raise OptionError("invalid fluentd-max-retries: value out of range")


def _check_interval(text: str) -> None:
    if not text:
        return
    given = parse_duration(text)
    if given and not 0.1 <= given <= 10:
        raise OptionError(
            f"invalid value for {_INTERVAL}: value ({go_quote(text)}) must be between 100ms and 10s"
        )


def message_mode(options: Mapping[str, str]) -> str:
    """``message``, ``packed`` or ``compressed``; by default packed if acknowledgement is asked for, else Docker's."""
    mode = options.get(_MODE, "")
    if not mode:
        return "packed" if flag(options, "fluentd-request-ack") else "message"
    if mode not in _MODES:
        raise OptionError(f"invalid {_MODE}: {mode}, expected message, packed or compressed")
    return mode


def tls(options: Mapping[str, str], address: FluentdAddress, *, check_files: bool = False) -> Tls | None:
    """The TLS of a ``tls://`` address; None for others. Raises OptionError."""
    secured = address.scheme == "tls"
    return parse_tls(
        "fluentd", options, secured=secured, addresses="tls:// addresses", check_files=check_files
    )


@dataclass(frozen=True, slots=True, repr=False)
class SecretSource:
    """Where the shared key and the password are found: a value, or a file of that value."""

    hostname: str
    shared_key: str
    shared_key_file: str
    username: str
    password: str
    password_file: str

    def read(self) -> Credentials:
        """What is there now. Raises OptionError naming a file that cannot be read or has nothing in it."""
        return Credentials(
            self.hostname,
            self.shared_key or _secret(f"{_KEY}-file", self.shared_key_file),
            self.username,
            _secret(f"{_PASSWORD}-file", self.password_file) if self.password_file else self.password,
        )


def secrets(options: Mapping[str, str], hostname: str) -> SecretSource | None:
    """What a handshake needs, if the options ask for one; ``hostname`` is the host's. Raises OptionError."""
    given = {key: options[key] for key in _SECURITY if key in options}
    for key, value in given.items():
        if not value:
            raise OptionError(f"{key} is empty")
    for key in (_KEY, _PASSWORD):
        if key in given and f"{key}-file" in given:
            raise OptionError(f"conflicting options: cannot specify both '{key}' and '{key}-file'")
    if _KEY not in given and f"{_KEY}-file" not in given:
        for key in given:
            raise OptionError(f"{key} is only valid with {_KEY} or {_KEY}-file")
        return None
    if (_USER in given) != (_PASSWORD in given or f"{_PASSWORD}-file" in given):
        raise OptionError(f"{_USER} and {_PASSWORD} or {_PASSWORD}-file go together")
    return SecretSource(
        given.get(_HOSTNAME) or hostname or socket.gethostname(),
        *(given.get(key, "") for key in _SECURITY[:-1]),
    )


def _secret(option: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise OptionError(f"cannot read {option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OptionError(f"cannot read {option} {path}: expected UTF-8 text") from None
    if not text:
        raise OptionError(f"cannot read {option} {path}: the file is empty")
    return text
