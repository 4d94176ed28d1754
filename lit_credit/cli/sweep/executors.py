"""Running cells, each in a fresh process: on this machine or on a Ray cluster."""

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
    """Something that runs cells; a handle stands for a running cell."""

    jobs: int

    def start(self, cell: Cell) -> Any:
        """Start the cell and return its handle."""

    def wait(self, handles: Sequence[Any]) -> tuple[Any, str]:
        """Wait until a cell ends; return its handle and what went wrong, "" for nothing."""

    def stop(self, handles: Sequence[Any]) -> None:
        """End these cells. They can be resumed later."""


def run_all(cells: Iterable[Cell], executor: Executor) -> Iterator[tuple[Cell, str]]:
    """Yield each cell when it ends, with what went wrong; leaving the loop ends running cells."""
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
    """Processes on this machine, one thread each unless ``OMP_NUM_THREADS`` is set.

    Importing torch and Lightning takes longer than a small run. So one process imports them once,
    and each cell runs in a fork of it. Cells cannot affect each other.

    Args:
        jobs: number of cells at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        if "forkserver" in multiprocessing.get_all_start_methods():
            self._context: Any = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(["lit_credit.cli.sweep.warm"])
            # The server imports torch and Lightning while the configurations are checked.
            forkserver.ensure_running()
        else:
            self._context = multiprocessing.get_context("spawn")

    def start(self, cell: Cell) -> Any:
        """Start a process for the cell."""
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
        """Terminate the processes, and kill those that do not end in time."""
        for process in handles:
            process.terminate()
        for process in handles:
            process.join(_GRACE_SECONDS)
            process.kill()
            process.join()


class RayCluster:
    """Tasks on a Ray cluster: that of ``RAY_ADDRESS``, else one on this machine, else a new one.

    All machines of the cluster need lit_credit and a shared file system.

    Args:
        jobs: number of cells at a time; None leaves it to the cluster.
        gpus: GPUs per cell.
    """

    def __init__(self, jobs: int | None, gpus: float) -> None:
        import ray  # an optional dependency

        self.jobs = jobs or sys.maxsize
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        # A cell that kills its worker is reported, not retried.
        self._run = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_in_worker)

    def start(self, cell: Cell) -> Any:
        """Submit the cell to the cluster."""
        return self._run.remote(cell)

    def wait(self, handles: Sequence[Any]) -> tuple[Any, str]:
        """Wait for the first to end."""
        handle = self._ray.wait(list(handles), num_returns=1)[0][0]
        try:
            return handle, self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            return handle, str(error).strip()

    def stop(self, handles: Sequence[Any]) -> None:
        """Kill the workers. Their child processes then end by themselves."""
        for handle in handles:
            self._ray.cancel(handle, force=True)


def _run_in_worker(cell: Cell) -> str:
    # Ray reuses its workers, so here too each cell gets a process of its own.
    return next(trouble for _, trouble in run_all([cell], LocalProcesses(1)))


def _run_alone(cell: Cell) -> None:
    """Run the cell in a process that ignores Ctrl-C and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from lit_credit.cli.sweep.run import run_cell  # the forked process has imported it already

    run_cell(cell)


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)
