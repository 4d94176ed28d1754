"""Letting rank zero work alone while the other processes wait for its result."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed

__all__ = ["waiting_for_rank_zero"]

SECONDS_UNTIL_A_WORD = 10.0
"""After this time, one line says whose work the processes wait for."""
PATIENCE = timedelta(days=1)
"""How long the others wait. If rank zero fails or ends, they know at once."""

_GROUPS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_TOLD: set[str] = set()


@contextmanager
def waiting_for_rank_zero(trainer: Trainer, who: str) -> Iterator[dict[str, Any]]:
    """Give every process the results of rank zero; the others wait until rank zero has them.

    Without this context, the others would go on to the next collective of the training, and die at
    the timeout of its process group if the work takes longer. Here they wait in a separate group.
    The body of the ``with`` runs on every process, but only rank zero works in it::

        with waiting_for_rank_zero(trainer, "ResidualNorms") as found:
            if trainer.is_global_zero:
                found["norm"] = measure()

    A single process does not wait. The context must be entered on every process.

    Args:
        trainer: the Trainer of the run.
        who: name of the worker, for a line that is printed once if the work takes long.

    Yields:
        A mapping to fill with objects that can be pickled. After the ``with``, it holds the entries
        of rank zero.

    Raises:
        RuntimeError: on the other processes, if the work failed on rank zero.
    """
    found: dict[str, Any] = {}
    group = _group(trainer)
    if group is None:
        yield found
        return
    parcel: list[Any] = [found, None]
    try:
        with _a_word_after_a_while(trainer, who):
            yield found
    except Exception as error:
        parcel[1] = f"{type(error).__name__}: {error}"
        if trainer.is_global_zero:
            distributed.broadcast_object_list(parcel, src=0, group=group)
        raise
    distributed.broadcast_object_list(parcel, src=0, group=group)
    if parcel[1] is not None:
        raise RuntimeError(f"{who} failed on rank zero, for which this process waited. {parcel[1]}")
    found.update(parcel[0])


def _group(trainer: Trainer) -> Any:
    """A group of all processes on the CPU with a longer timeout; None for a single process."""
    if trainer.world_size == 1 or not distributed.is_available():
        return None
    if not distributed.is_initialized():
        return None
    world = distributed.group.WORLD
    if world not in _GROUPS:
        _GROUPS[world] = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return _GROUPS[world]


@contextmanager
def _a_word_after_a_while(trainer: Trainer, who: str) -> Iterator[None]:
    if not trainer.is_global_zero or who in _TOLD:
        yield
        return

    def tell() -> None:
        _TOLD.add(who)
        rank_zero_info(
            f"{who} has worked on rank zero for {SECONDS_UNTIL_A_WORD:.0f} s; the other ranks wait."
        )

    timer = Timer(SECONDS_UNTIL_A_WORD, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
