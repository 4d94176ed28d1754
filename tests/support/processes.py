"""Processes that tests start and wait for, by what they do: a slow machine passes too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

Popen = subprocess.Popen[str]
HANG = 3600.0
"""Seconds after which a process hangs. On an idle machine the slowest needs 20."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and number of threads; gloo, for several processes."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PL_TORCH_DISTRIBUTED_BACKEND": "gloo",
        **variables,
    }


def run_module(module: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m MODULE WORD...`` to its end, which must be a good one."""
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def start_module(module: str, *words: object) -> Popen:
    """Start ``python -m MODULE WORD...``; its stderr can be read from the process."""
    command = [sys.executable, "-m", module, *map(str, words)]
    # A shell has what it starts in the background ignore Ctrl-C, and so would a child of that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_until(happened: Callable[[], bool], process: Popen | None = None) -> None:
    """Wait for an event; an error if the process that should bring it about ends before it."""
    end = time.monotonic() + HANG
    while not happened():
        if process is not None and process.poll() is not None and not happened():
            raise AssertionError(f"exit code {process.returncode}: {process.communicate()[1]}")
        if time.monotonic() > end:
            raise AssertionError(f"nothing happened in {HANG:.0f} s")
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended, and its parent has been told."""
    return not Path(f"/proc/{pid}").exists()
