"""Restoring the state of loaders after reading from them."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_credit.inspect.state.held_boxes import Items, Pairs
from lit_credit.utils.both_packages import with_twins
from lit_credit.utils.random_state import put_back

__all__ = ["undisturbed"]

_LONGEST = 1000
_NOT_ENTERED = (Tensor, np.ndarray, type, ModuleType, str, bytes, Trainer, LightningModule)
# Not entered: a loader's workers and its iterator's threads use these at this very moment.
_AT_WORK = ("multiprocessing", "threading", "_thread", "queue", "concurrent", "asyncio", "weakref")
_ITERATORS = ("builtins", "itertools", "torch")
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@contextmanager
def undisturbed(*roots: Any) -> Iterator[None]:
    """Restore the state of loaders, and of the objects that they refer to, on exit.

    Objects are found through attributes, short lists and dicts, closures, partials and bound
    methods: samplers, datasets, transforms, collate functions. Restored are random generators of
    torch, numpy and python, attributes (such as a counter, or a file opened at first use), and the
    items of lists, dicts and sets. Not entered are tensors and arrays, which a dataset is not
    expected to write to, containers of more than 1000 items, iterators, threads and queues, and the
    Trainer and its module.

    Args:
        *roots: the loaders.

    Example:
        >>> draws = np.random.default_rng(0)
        >>> with undisturbed([draws]):
        ...     inside = draws.random()
        >>> draws.random() == inside
        True
    """
    restore = [_restorer(thing) for thing in _reachable(roots)]
    try:
        yield
    finally:
        for again in restore:
            again()


def _reachable(roots: Any) -> list[Any]:
    not_entered = with_twins(*_NOT_ENTERED)
    found: dict[int, Any] = {}
    waiting = deque([roots])
    while waiting:
        thing = waiting.popleft()
        if id(thing) in found or isinstance(thing, not_entered):
            continue
        parts = _parts(thing)
        if parts is not None:
            found[id(thing)] = thing
            waiting.extend(parts)
    return list(found.values())


def _parts(thing: Any) -> list[Any] | None:
    """The objects that a thing refers to; None if nothing of the thing can be restored."""
    package = type(thing).__module__.partition(".")[0]
    if package in _AT_WORK or (isinstance(thing, Iterator) and package in _ITERATORS):
        return None
    if isinstance(thing, torch.Generator | np.random.Generator | np.random.RandomState):
        return []
    if isinstance(thing, MethodType):
        return [thing.__self__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, FunctionType):
        return [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
    own = [vars(thing)] if isinstance(getattr(thing, "__dict__", None), dict) else []
    if isinstance(thing, dict | list | tuple | set | deque):
        if len(thing) > _LONGEST:
            return own or None
        return own + list(thing.values() if isinstance(thing, dict) else thing)
    if isinstance(thing, random.Random):
        return own
    return own or None


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _restorer(thing: Any) -> Callable[[], Any]:
    if isinstance(thing, _GENERATORS):
        return put_back(thing)
    if isinstance(thing, dict):
        return Pairs(thing).restore
    if isinstance(thing, set | list | deque):
        return Items(thing).restore
    return lambda: None
