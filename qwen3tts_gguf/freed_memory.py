"""Memory that was freed, but not given back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["return_freed_memory"]


def return_freed_memory() -> None:
    """Give freed memory back to the system, where the C library (glibc) keeps it: buffers of up to 32 MB.

    It is 60 MB of a loaded 0.6B (what reading the vocabulary took), and half of what a burst of speeches takes with a
    small model.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library; TypeError from ctypes.CDLL(None) on Windows
        ctypes.CDLL(None).malloc_trim(0)
