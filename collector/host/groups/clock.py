"""The host's clock: what time it is, what it is made of, and how well it is kept (adjtimex(2))."""

from __future__ import annotations

import ctypes
import os
import time as system_time

from collector.host.group import Absent, Files, Readings, Series, one

__all__ = ["synchronized", "time", "timex"]

_ERROR = 5  #: TIME_ERROR: not synchronized
_NANO = 0x2000  #: STA_NANO: offset and jitter are in nanoseconds
_PPM16 = 65536 * 1e6  #: frequencies are in parts per million, shifted by 16 bits
_long = ctypes.c_long


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", _long), ("usec", _long))


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", _long),
        ("freq", _long),
        ("maxerror", _long),
        ("esterror", _long),
        ("status", ctypes.c_int),
        ("constant", _long),
        ("precision", _long),
        ("tolerance", _long),
        ("time", _Timeval),
        ("tick", _long),
        ("ppsfreq", _long),
        ("jitter", _long),
        ("shift", ctypes.c_int),
        ("stabil", _long),
        ("jitcnt", _long),
        ("calcnt", _long),
        ("errcnt", _long),
        ("stbcnt", _long),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def synchronized() -> bool:
    """Whether the kernel was told that somebody keeps the clock to a reference; False where it may not be asked."""
    state: int = _libc.adjtimex(ctypes.byref(_Timex()))
    return 0 <= state < _ERROR


def timex(_files: Files) -> Readings:
    """Node Exporter's ``timex``. Raises Absent where the system call is not allowed."""
    buffer = _Timex()
    state = _libc.adjtimex(ctypes.byref(buffer))
    if state < 0:
        number = ctypes.get_errno()
        raise Absent(f"adjtimex: {os.strerror(number)}")
    second = 1e9 if buffer.status & _NANO else 1e6
    values = {
        "offset_seconds": buffer.offset / second,
        "frequency_adjustment_ratio": 1 + buffer.freq / _PPM16,
        "maxerror_seconds": buffer.maxerror / 1e6,
        "estimated_error_seconds": buffer.esterror / 1e6,
        "status": buffer.status,
        "loop_time_constant": buffer.constant,
        "tick_seconds": buffer.tick / 1e6,
        "pps_frequency_hertz": buffer.ppsfreq / _PPM16,
        "pps_jitter_seconds": buffer.jitter / second,
        "pps_shift_seconds": buffer.shift,
        "pps_stability_hertz": buffer.stabil / _PPM16,
        "pps_jitter_total": buffer.jitcnt,
        "pps_calibration_total": buffer.calcnt,
        "pps_error_total": buffer.errcnt,
        "pps_stability_exceeded_total": buffer.stbcnt,
        "tai_offset_seconds": buffer.tai,
        "sync_status": int(state != _ERROR),
    }
    return {f"node_timex_{name}": one(value) for name, value in values.items()}


def time(files: Files) -> Readings:
    """Node Exporter's ``time``: seconds since the epoch, the zone's offset, and the clock sources."""
    now = system_time.time()
    local = system_time.localtime(now)
    available: Series = []
    current: Series = []
    directory = f"{files.sys}/devices/system/clocksource"
    for name in files.some_names(directory, r"clocksource\d+"):
        number = name.removeprefix("clocksource")
        sources = (files.text(f"{directory}/{name}/available_clocksource") or "").split()
        available += [((number, source), 1) for source in sources]
        chosen = files.text(f"{directory}/{name}/current_clocksource")
        if chosen:
            current.append(((number, chosen), 1))
    return {
        "node_time_seconds": one(now),
        "node_time_zone_offset_seconds": [((local.tm_zone,), local.tm_gmtoff)],
        "node_time_clocksource_available_info": available,
        "node_time_clocksource_current_info": current,
    }
