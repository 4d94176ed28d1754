"""Running nets that use ``torch.utils.checkpoint``, with hooks or cut into units."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, Literal

import torch
from torch.utils import checkpoint as torch_checkpoint

from lit_credit.utils.nested import tensors_of
from lit_credit.utils.private_names import CHECKPOINT_GENERATORS, in_backward
from lit_credit.utils.shared import Shared

__all__ = ["checkpoints", "is_second_run", "with_checkpoints"]

Mode = Literal["direct", "kept", "probed"]

_STATE = local()


class checkpoints:
    """Set how this thread runs activation checkpoints inside the ``with``.

    torch's reentrant variant runs its function without autograd, and again only in ``.backward()``.
    So hooks see no graph, ``torch.autograd.grad`` is refused, and the function's parameters learn
    nothing if none of its inputs requires a gradient. All modes use the other variant instead.

    Args:
        mode: ``kept`` keeps all checkpoints, whatever their inputs. ``probed`` keeps them too, but
            a reentrant checkpoint without an input that requires a gradient has no graph, because
            it learns nothing in training. ``direct`` runs the functions without checkpoints: if a
            unit is cut out of a function, its second run would differ from its first.
    """

    def __init__(self, mode: Mode) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        _PATCHED.__enter__()
        self._before = _mode()
        _STATE.mode = self._mode

    def __exit__(self, *error: Any) -> None:
        _STATE.mode = self._before
        _PATCHED.__exit__(None, None, None)


def with_checkpoints(mode: Mode, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that it runs in a mode of :class:`checkpoints`, in a second run too."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with checkpoints(mode):
            return function(*args, **kwargs)

    return run


def is_second_run() -> bool:
    """Whether the current forward pass is a checkpoint's second run, inside a backward pass."""
    return in_backward()


def _mode() -> Mode | None:
    return getattr(_STATE, "mode", None)


class _Reentrant:
    """Replaces ``torch.utils.checkpoint.CheckpointFunction``."""

    original: Any = None

    @classmethod
    def apply(cls, function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        mode = _mode()
        if mode is None:
            return cls.original.apply(function, preserve, *args)
        if mode == "direct" or not torch.is_grad_enabled():
            return function(*args)
        # `CheckpointFunction` makes no graph either if no argument requires a gradient.
        if mode == "probed" and not any(tensor.requires_grad for tensor in tensors_of(args)):
            with torch.no_grad():
                return function(*args)
        run = with_checkpoints(mode, function)
        return torch_checkpoint.checkpoint(
            run, *args, use_reentrant=False, preserve_rng_state=preserve
        )


def _without(original: Callable[..., Any]) -> Callable[..., Iterator[None]]:
    def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _mode() == "direct":
            yield
        else:
            yield from original(*args, **kwargs)

    return generator


@contextmanager
def _patched() -> Iterator[None]:
    generators = [name for name in CHECKPOINT_GENERATORS if hasattr(torch_checkpoint, name)]
    names = ("CheckpointFunction", *generators)
    originals = {name: getattr(torch_checkpoint, name) for name in names}
    try:
        for name, original in originals.items():
            stands = _Reentrant if name == "CheckpointFunction" else _without(original)
            setattr(torch_checkpoint, name, stands)
        _Reentrant.original = originals["CheckpointFunction"]
        yield
    finally:
        for name, original in originals.items():
            setattr(torch_checkpoint, name, original)


_PATCHED = Shared(_patched)
