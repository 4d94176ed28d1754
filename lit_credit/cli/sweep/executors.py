"""Where the cells run: each in a fresh process, here or on a Ray cluster."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any, Protocol

from lit_credit.cli.sweep.cell import Cell

__all__ = ["Executor", "LocalProcesses", "RayCluster", "default_jobs", "run_all"]

_GRACE_SECONDS = 10


class Executor(Protocol):
    """A place for cells; a handle stands for a cell that runs there."""

    jobs: int

    def start(self, cell: Cell) -> Any:
        """Run the cell; returns its handle."""

    def wait(self, handles: Sequence[Any]) -> tuple[Any, str]:
        """Return one of the handles when its cell has ended, and how: "" if well."""

    def stop(self, handles: Sequence[Any]) -> None:
        """End these cells; they can be resumed."""


def run_all(cells: Iterable[Cell], executor: Executor) -> Iterator[tuple[Cell, str]]:
    """Each cell when it has ended, and how; whatever ends this loop ends the cells that run."""
    waiting, running = list(cells)[::-1], dict[Any, Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < executor.jobs:
                cell = waiting.pop()
                running[executor.start(cell)] = cell
            handle, trouble = executor.wait(list(running))
            yield running.pop(handle), trouble
    finally:
        executor.stop(list(running))


def default_jobs() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalProcesses:
    """Processes of this machine, one thread each unless ``OMP_NUM_THREADS`` is set.

    Importing torch and Lightning takes longer than a small run. One process does it once, and is
    forked for each cell: nothing that a cell does to its process reaches another cell.

    Args:
        jobs: cells at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        if "forkserver" in multiprocessing.get_all_start_methods():
            self._context: Any = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(["lit_credit.cli.sweep.run"])
            # It imports while the configurations are checked.
            forkserver.ensure_running()
        else:
            self._context = multiprocessing.get_context("spawn")

    def start(self, cell: Cell) -> Any:
        """Fork."""
        process = self._context.Process(target=_run_alone, args=(cell,), name=cell.name)
        process.start()
        return process

    def wait(self, handles: Sequence[Any]) -> tuple[Any, str]:
        """Wait for the first to end."""
        ready = wait([process.sentinel for process in handles])
        process = next(process for process in handles if process.sentinel in ready)
        process.join()
        code = process.exitcode
        if not code:
            return process, ""
        return process, f"exit code {code}" if code > 0 else f"killed by signal {-code}"

    def stop(self, handles: Sequence[Any]) -> None:
        """Ask, then insist."""
        for process in handles:
            process.terminate()
        for process in handles:
            process.join(_GRACE_SECONDS)
            process.kill()
            process.join()


class RayCluster:
    """Tasks of a Ray cluster: that of ``RAY_ADDRESS``, or of this machine, or a new one here.

    All its machines need lit_credit and one file system.

    Args:
        jobs: cells at a time; None leaves it to the cluster.
        gpus: of each cell.
    """

    def __init__(self, jobs: int | None, gpus: float) -> None:
        import ray  # an extra

        self.jobs = jobs or sys.maxsize
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        # A cell that kills its worker is reported, not tried again.
        self._run = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_in_worker)

    def start(self, cell: Cell) -> Any:
        """Submit."""
        return self._run.remote(cell)

    def wait(self, handles: Sequence[Any]) -> tuple[Any, str]:
        """Wait for the first to end."""
        handle = self._ray.wait(list(handles), num_returns=1)[0][0]
        try:
            return handle, self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            return handle, str(error).strip()

    def stop(self, handles: Sequence[Any]) -> None:
        """Kill the workers, whose processes then end by themselves."""
        for handle in handles:
            self._ray.cancel(handle, force=True)


def _run_in_worker(cell: Cell) -> str:
    # A process of its own for each cell here too: Ray uses its workers again.
    return next(trouble for _, trouble in run_all([cell], LocalProcesses(1)))


def _run_alone(cell: Cell) -> None:
    """Run the cell in a process that leaves Ctrl-C to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from lit_credit.cli.sweep.run import run_cell  # imported by the process that is forked

    run_cell(cell)


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)
