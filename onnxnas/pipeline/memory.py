"""Memory that torch gives back and takes again, thousands of times a minute."""

from __future__ import annotations

import contextlib
import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # malloc.h
_LARGEST = 1 << 30  # bytes


def keep_freed() -> bool:
    """Let this process keep what it frees for its next allocation; whether the C library can.

    glibc maps every large tensor anew, and the kernel then clears it page by page: 7 to 10 % of the time of a
    training step of ResNet-20 at 32 x 32. Only for processes that are ours: it holds for all of a process.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all(mallopt(option, _LARGEST) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
    return False
