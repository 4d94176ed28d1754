"""Work that rank zero does alone, while the other processes wait for what it finds."""

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
"""After so many, one line says who is waited for."""
PATIENCE = timedelta(days=1)
"""How long others wait. If rank zero fails or ends they know at once."""

_GROUPS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_TOLD: set[str] = set()


@contextmanager
def waiting_for_rank_zero(trainer: Trainer, who: str) -> Iterator[dict[str, Any]]:
    """Give every process what rank zero puts into the mapping, and hold the others until then.

    Without it the others would go on to the next collective of the training, and die there at the
    timeout of the process group, if the work takes longer. These wait in a group of their own. The
    body of the ``with`` runs on every process, and only rank zero works in it::

        with waiting_for_rank_zero(trainer, "ResidualNorms") as found:
            if trainer.is_global_zero:
                found["norm"] = measure()

    One process alone does not wait. It must be called on every process.

    Args:
        trainer: of the run.
        who: does the work, for the line that is printed, once, where it takes long.

    Yields:
        A mapping to fill, of what can be pickled; after the ``with`` it is that of rank zero.

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
    """All processes, on the CPU, with our own timeout; None if there is one process."""
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
