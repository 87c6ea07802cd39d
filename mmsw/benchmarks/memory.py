"""The memory of a process: how much it has taken at most, and giving back what is free."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

_STATUS = Path('/proc/self/status')
_PEAK = re.compile(r'^VmHWM:\s*(\d+) kB', re.MULTILINE)


def resident_peak() -> int:
    """Most resident memory of this process so far, in bytes.

    ``getrusage`` is asked only where there is no ``/proc``: on Linux its figure starts at what the
    parent process held when it started this one.
    """
    if _STATUS.is_file():
        found = _PEAK.search(_STATUS.read_text(encoding='utf-8'))
        if found:
            return 1024 * int(found[1])
    import resource  # not on Windows, where the rest of the package can be imported

    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it for itself.

    glibc keeps blocks of large maps, which then look taken to whoever asks how much is free.
    """
    gc.collect()
    if sys.platform == 'linux':
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # of glibc alone
        if trim is not None:
            trim(0)
