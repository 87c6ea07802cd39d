"""How much memory a process has taken at most."""

from __future__ import annotations

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
