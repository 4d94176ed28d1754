"""Contestants timed in turns as CPU time of the process, and their table."""

import logging
import platform
import statistics
import time
import warnings
from collections.abc import Callable

import torch


def begin(threads: int, rounds: int) -> None:
    """Set the threads, quieten Lightning, and say where this runs."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    cpu = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {cpu}, {threads} thread(s), {rounds} rounds")


def time_rounds(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every contestant in every round, after one round to warm up.

    Args:
        contestants: by name; each of them runs once a round.
        rounds: how many.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(-1, rounds):
        # Turn the order, so that nobody always runs after the same other.
        names = list(contestants)
        names = names[round_ % len(names) :] + names[: round_ % len(names)]
        for name in names:
            start = time.process_time()
            contestants[name]()
            if round_ >= 0:
                seconds[name].append(time.process_time() - start)
        print(f"\rround {round_ + 1} of {rounds}", end="", flush=True)
    print("\r" + 20 * " " + "\r", end="")
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of what one takes, in units of another."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return statistics.median(a / b for a, b in pairs)


def print_table(
    title: str, seconds: dict[str, list[float]], counts: dict[str, int], unit: str = "an update"
) -> None:
    """A line a contestant: its milliseconds, and how much faster it is than the first one.

    Args:
        title: first line.
        seconds: of :func:`time_rounds`.
        counts: how often each does in a round what is counted.
        unit: what is counted.
    """
    print(title)
    each = {name: [s / counts[name] for s in own] for name, own in seconds.items()}
    first = next(iter(each))
    for name, own in each.items():
        ms, speed = 1e3 * statistics.median(own), ratio(each, first, name)
        print(f"  {name:42}{ms:9.3f} ms {unit}, ratio {speed:6.1f}")
