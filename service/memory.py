"""Memory: what a large body took goes back to the system when it is answered, and is not kept for the next one."""

from __future__ import annotations

import ctypes
import sys

# mallopt's number for it, in malloc.h.
_M_MMAP_THRESHOLD = -3
_LARGE = 2**20


def give_large_blocks_back() -> None:
    """Has glibc map each large block by itself, and not take the first one that is freed as the measure of large.

    Otherwise a photo of 20 MB raises that measure to 20 MB, later ones come from the heaps of the threads, and each
    heap keeps its largest: measured, 174 MB for good after the hostile uploads, and 8 MB with this. Elsewhere than on
    glibc nothing is done.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(_M_MMAP_THRESHOLD, _LARGE)
