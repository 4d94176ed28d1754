"""Reading many large histories in processes of their own, while this one loads PyTorch."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, cast

from lit_credit.runs.columns import Columns
from lit_credit.runs.run_folder import read_ordered_columns

__all__ = ["Ahead", "reading_ahead"]

_WORTHWHILE = 1 << 26
"""Bytes of all files from which on further processes are started: a second of reading each."""
_LARGEST = 1 << 28
"""Bytes of a file that is not read ahead, because all its tags would be held at once."""
_LENGTH = 8
"""Bytes of the length that is sent before the columns of a file; 0 stands for none."""
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from lit_credit.runs.read_ahead import _serve
_serve()
"""


class Ahead:
    """Histories that other processes are reading."""

    def __init__(self) -> None:
        self._found: dict[Path, Future[Columns | None]] = {}

    def take(self, path: Path) -> Columns | None:
        """The columns of a file, once they are read; None if this process has to read it.

        Args:
            path: the file, as it was given to :func:`reading_ahead`.
        """
        future = self._found.pop(path, None)
        return None if future is None else future.result()

    def _start(self, paths: Sequence[Path]) -> "subprocess.Popen[bytes] | None":
        """Start a process that reads files, and a thread that takes what it has read."""
        futures: list[Future[Columns | None]] = [Future() for _ in paths]
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, TypeError):  # no more processes, or an interpreter without a file
            return None
        self._found |= zip(paths, futures, strict=True)
        Thread(target=_receive, args=(process, paths, futures), daemon=True).start()
        return process


@contextmanager
def reading_ahead(paths: Sequence[Path]) -> Iterator[Ahead]:
    """Read files in as many processes as there are CPUs while the ``with`` lasts.

    A file that cannot be read there is left to this process, which then raises the error.

    Args:
        paths: histories, in the order in which they will be asked for. Few or small ones are left
            to this process.

    Yields:
        What is read.
    """
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    wanted = [path for path, size in sizes.items() if size <= _LARGEST]
    cpus = _cpus()
    ahead = Ahead()
    processes: list[subprocess.Popen[bytes] | None] = []
    if cpus > 1 and sum(sizes[path] for path in wanted) >= _WORTHWHILE:
        processes = [ahead._start(wanted[part::cpus]) for part in range(min(cpus, len(wanted)))]
    try:
        yield ahead
    finally:
        for process in filter(None, processes):
            process.kill()
            process.wait()


def _cpus() -> int:
    """CPUs that this process may use, at most 8: more wait for the disk, and for this process."""
    known = getattr(os, "sched_getaffinity", None)  # not on every system
    return min(8, len(known(0)) if known else os.cpu_count() or 1)


def _receive(
    process: subprocess.Popen[bytes],
    paths: Sequence[Path],
    futures: Sequence[Future[Columns | None]],
) -> None:
    """Hand out what the process sends; None for what it does not send."""
    given, sent = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    words = [list(map(str, sys.path)), list(map(str, paths))]
    try:
        with suppress(OSError), given:
            given.writelines(f"{json.dumps(word)}\n".encode() for word in words)
        with sent, suppress(OSError, ValueError):  # the process was killed
            for future in futures:
                length = int.from_bytes(sent.read(_LENGTH), "big")
                data = sent.read(length)
                future.set_result(Columns.of_bytes(data) if 0 < length == len(data) else None)
    finally:  # or `take` would wait for ever
        for future in futures:
            if not future.done():
                future.set_result(None)


def _serve() -> None:
    """Read the files named on stdin, and write their columns to stdout."""
    gc.disable()
    for path in json.loads(sys.stdin.readline()):
        try:
            data = read_ordered_columns(Path(path)).to_bytes()
        except ValueError:  # the other process reads it again, and raises
            data = b""
        sys.stdout.buffer.write(len(data).to_bytes(_LENGTH, "big") + data)
        sys.stdout.buffer.flush()
