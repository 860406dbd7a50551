"""Is the wall clock kept by a time server, and how far off is it? Asked of the kernel (adjtimex), nothing is set and no network is used.

The monotonic clock, by which everything is timed, does not need it; a node sensor with a clock of its own does (rule A6).
"""

import contextlib
import ctypes
import sys

from msgspec import Struct

STA_UNSYNC, STA_NANO = 0x0040, 0x2000
"""Bits of `status` (linux/timex.h): nobody keeps the clock; `offset` is in nanoseconds and not in microseconds."""
TIME_ERROR = 5


class Clock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kernel's view of the wall clock; `None` is not told."""

    synchronised: bool | None = None
    ntp_offset_ms: float | None = None
    """What is left to correct; None where no server keeps the clock."""
    max_error_ms: float | None = None
    """Bound that the keeper gives or the kernel lets grow by 0.5 ms a second."""


class _Timex(ctypes.Structure):
    """`struct timex` of Linux; trailing fields are only room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


def describe_clock() -> Clock:
    """This machine's; nothing known outside Linux and where a container forbids the question."""
    if sys.platform != "linux":
        return Clock()
    asked = _Timex(modes=0)
    with contextlib.suppress(OSError, AttributeError):
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked))
        if state >= 0:
            return clock_from(state, asked.status, asked.offset, asked.maxerror)
    return Clock()


def clock_from(state: int, status: int, offset: int, max_error_us: int) -> Clock:
    """What adjtimex said, in milliseconds."""
    if state == TIME_ERROR or status & STA_UNSYNC:
        return Clock(synchronised=False)
    per_ms = 1e6 if status & STA_NANO else 1e3
    return Clock(synchronised=True, ntp_offset_ms=offset / per_ms, max_error_ms=max_error_us / 1e3)
