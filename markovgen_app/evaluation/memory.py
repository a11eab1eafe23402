"""How much main memory this process took at the most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB.

    On Linux from VmHWM: `ru_maxrss` of a process starts at what its parent had when it started it.
    """
    try:
        own = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        own = None
    if own:
        return int(own[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
