"""Judging the sizes of feedback matrices before any of them is drawn."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

__all__ = ["available_memory", "check_matrix_sizes"]

_BYTES = 4  # matrices are drawn in float32
_LARGE = 500 * 10**6
_LARGE_BESIDE_NET = 250 * 10**6
_TIMES_NET = 4
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def check_matrix_sizes(
    sizes: Mapping[str, tuple[int, int]],
    remedy: str,
    parameters: int | None = None,
    copies: int = 1,
) -> None:
    """Refuse feedback matrices that do not fit into the memory; warn of very large ones.

    Nothing is allocated. A matrix (F, E) takes 4 F E bytes, on the CPU, where it is drawn.

    Args:
        sizes: rows and columns of each matrix that is to be drawn, by the name of its unit.
        remedy: a sentence that says how to make them smaller.
        parameters: numbers that the net has; with them, matrices above 250 MB are warned of if they
            have more than four times as many. None warns above 500 MB.
        copies: how often the matrices are held while they are drawn.

    Raises:
        ValueError: if they take more memory than there is.

    Example:
        >>> check_matrix_sizes({"conv": (2**20, 2**20)}, "Use smaller maps.")
        Traceback (most recent call last):
        ValueError: the feedback matrices would take 4398.05 GB, ... Use smaller maps.
    """
    each = {name: _BYTES * rows * columns for name, (rows, columns) in sizes.items()}
    total = sum(each.values())
    if total < _LARGE_BESIDE_NET:
        return
    largest = max(each, key=lambda name: each[name])
    text = f"{total / 1e9:.2f} GB"
    where = f"the largest, {sizes[largest]}, of unit {largest!r}, {each[largest] / 1e9:.2f} GB"
    free = available_memory()
    if free is not None and copies * total > free:
        raise ValueError(
            f"the feedback matrices would take {text}, {where}; {free / 1e9:.2f} GB are free, and "
            f"drawing needs {copies * total / 1e9:.2f} GB. {remedy}"
        )
    many = total > _LARGE if parameters is None else total > _TIMES_NET * _BYTES * parameters
    if many:
        beside = ""
        if parameters:
            beside = f", {total / _BYTES / parameters:.0f} times the net's parameters"
        warnings.warn(f"the feedback matrices take {text}{beside}; {where}. {remedy}", stacklevel=2)


def available_memory() -> int | None:
    """Bytes of memory that this process may still take; None if the system does not tell."""
    found = [_of_system(), *(_of_group(*paths) for paths in _CGROUPS)]
    known = [free for free in found if free is not None]
    return min(known) if known else None


def _of_system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:  # all the memory that there is: an upper bound
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_group(limit: str, usage: str) -> int | None:
    """What a container's limit leaves."""
    try:
        most, used = (int(Path(path).read_text(encoding="ascii")) for path in (limit, usage))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return max(0, most - used)
