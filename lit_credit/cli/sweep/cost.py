"""CPU time and memory of one run, measured by its own process."""

import os
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Cost"]


class Cost:
    """CPU time and peak memory of this process, and of its children, from now on."""

    def __init__(self) -> None:
        self._cpu, self._memory = _cpu_seconds(), _peak_bytes()

    def measured(self) -> dict[str, float | int | None]:
        """What was used since then.

        Returns:
            ``cpu_seconds``: user plus system time of this process and of its children that have
            ended. ``peak_memory``: how far the memory of this process has grown, in bytes, at its
            largest: private memory, without that of the fork server it was forked from, without
            files such as libraries, and without children; None on Windows.
        """
        peak = _peak_bytes()
        grown = None if peak is None or self._memory is None else max(peak - self._memory, 0)
        return {"cpu_seconds": _cpu_seconds() - self._cpu, "peak_memory": grown}


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _peak_bytes() -> int | None:
    """The largest private memory so far; None where the system does not tell.

    Linux: the largest resident memory without the pages of files that are mapped now. A forked
    process maps the pages of its libraries again one by one, as it comes to need them, so these
    pages would count as growth. ``ru_maxrss`` may be that of the process before an ``exec``.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        if resource is None:
            return None
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest * (1 if sys.platform == "darwin" else 1024)
    found = dict(line.split(":", 1) for line in lines)
    peak, *files = (int(found[name].split()[0]) for name in ("VmHWM", "RssFile", "RssShmem"))
    return 1024 * (peak - sum(files))
