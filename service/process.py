"""The process that serves: its memory, its garbage collector and its threads, set so that no request waits for them."""

from __future__ import annotations

import ctypes
import gc
import sys

# mallopt's number for it, in malloc.h.
_M_MMAP_THRESHOLD = -3
_LARGE = 2**20
# Allocations and collections between two of the collector; Python's own are 700, 10 and 10.
_COLLECTED = (20_000, 50, 50)
# Seconds after which a thread at work hands the interpreter on; Python's own are 0.005.
_SWITCH_S = 0.001


def prepare_process() -> None:
    """Sets the process up for serving, once everything that stays has been loaded."""
    give_large_blocks_back()
    # A full collection looked at everything that was ever imported, and held all requests for 100 ms each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
    # The loop that reads requests and refuses them has short work, again and again, beside threads with longer.
    sys.setswitchinterval(_SWITCH_S)


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
