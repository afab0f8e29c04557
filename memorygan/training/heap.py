"""Memory that glibc keeps after threads freed it: large aligned buffers leave gaps that it does not fill again."""

from __future__ import annotations

import ctypes
import sys


def trim() -> bool:
    """Returns freed memory to the system; False where that is not needed, or cannot be asked for."""
    if not sys.platform.startswith("linux"):
        return False
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return release is not None and bool(release(0))
