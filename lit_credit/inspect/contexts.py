"""Reading all contexts of a known distribution from a datamodule, and running a net on them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_credit.inspect.capture import Point, capture
from lit_credit.protocols import DataModuleProtocol, method

__all__ = [
    "NO_CONTEXTS",
    "Contexts",
    "has_contexts",
    "live_contexts",
    "read_contexts",
    "run_contexts",
    "split_contexts",
]

_AT_ONCE = 8192


class Contexts(NamedTuple):
    """What a datamodule's ``contexts()`` returns, as this class or as a plain tuple.

    Attributes:
        x: (M, ...) whole numbers or features; the module is called as ``module(x)``.
        prior: (M,), the probability of each context, with sum 1.
        rows: (M, N), the true distribution over symbols after each context.
    """

    x: Tensor
    prior: Tensor
    rows: Tensor


NO_CONTEXTS = Contexts(torch.empty(0, 0), torch.empty(0), torch.empty(0, 0))
"""Stands for a datamodule without contexts."""


def has_contexts(trainer: Trainer) -> bool:
    """Whether the Trainer's datamodule has a method ``contexts()``."""
    return method(_datamodule(trainer), DataModuleProtocol.contexts) is not None


def read_contexts(trainer: Trainer) -> Contexts:
    """Read and check the contexts of the Trainer's datamodule.

    Raises:
        MisconfigurationException: if the datamodule has no ``contexts()``, if these are not three
            tensors in the shapes and sums of :class:`Contexts`, or if a probability is below 0.
    """
    data = _datamodule(trainer)
    if not has_contexts(trainer):
        raise MisconfigurationException(
            f"a datamodule with `contexts()` is needed, which {type(data).__name__} does not have. "
            "Give it a method that returns (x, prior, rows): the inputs (M, ...), their "
            "probabilities (M,), and the true distributions (M, N) after them."
        )
    given: Any = data.contexts()
    if not (
        isinstance(given, tuple | list) and [isinstance(p, Tensor) for p in given] == [True] * 3
    ):
        raise MisconfigurationException(
            f"`contexts()` of {type(data).__name__} returned {type(given).__name__}, expected a "
            "tuple of three tensors, x (M, ...), prior (M,) and rows (M, N)."
        )
    found = Contexts(*given)
    shapes = tuple(tuple(part.shape) for part in found)
    fits = found.prior.ndim == 1 and found.rows.ndim == 2
    if not fits or not len(found.x) == len(found.prior) == len(found.rows):
        raise MisconfigurationException(
            f"`contexts()` of {type(data).__name__} returned tensors of shapes {shapes}, expected "
            "x (M, ...), prior (M,) and rows (M, N)."
        )
    for name, part in (("prior", found.prior), ("rows", found.rows)):
        total = part.double().sum(-1).cpu()
        if (part < 0).any() or not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            raise MisconfigurationException(
                f"`{name}` of `contexts()` of {type(data).__name__} does not sum to 1, or has an "
                "entry below 0."
            )
    return found


def live_contexts(contexts: Contexts) -> Contexts:
    """The contexts that occur: those with a prior above 0."""
    return Contexts(*(part[contexts.prior > 0] for part in contexts))


def split_contexts(contexts: Contexts) -> Iterator[Contexts]:
    """Split contexts, in order, into parts of some thousands, small enough for one forward pass."""
    return map(Contexts, *(torch.split(part, _AT_ONCE) for part in contexts))


@torch.no_grad()
def run_contexts(
    module: LightningModule, contexts: Contexts, point: Point | None = None
) -> tuple[Tensor, Tensor | None]:
    """Compute the logits after all contexts, and record a point on the way.

    If logits have the shape (M, T, N), or the point (M, T, d), their last position is taken.

    Args:
        module: called as ``module(x)``, on some thousands of contexts at once.
        contexts: the inputs.
        point: the point to record; None records nothing.

    Returns:
        Logits (M, N), and the recorded tensor (M, d), or None if ``point`` is None or not passed.

    Raises:
        MisconfigurationException: if the call fails, or does not return logits (M, N).
    """
    logits, passed = [], []
    for part in split_contexts(contexts):
        with capture(module, [] if point is None else [point]) as values:
            output = _run(module, part.x.to(module.device))
        logits.append(_at_last(output))
        passed += [_at_last(value) for value in values.values()]
    found = torch.cat(logits)
    if found.shape != contexts.rows.shape:
        raise MisconfigurationException(
            f"{type(module).__name__} returned {tuple(found.shape)} for the datamodule's contexts, "
            f"expected logits {tuple(contexts.rows.shape)}, one for each symbol."
        )
    return found, torch.cat(passed) if passed else None


def _run(module: nn.Module, x: Tensor) -> Tensor:
    try:
        output: Any = module(x)
    except Exception as error:
        raise MisconfigurationException(
            f"{type(module).__name__} was called with contexts of shape {tuple(x.shape)} and dtype "
            f"{x.dtype}, and failed: {type(error).__name__}: {str(error).rstrip('.')}. Give it a "
            "`forward` that takes what the datamodule's `contexts()` returns as x."
        ) from error
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise MisconfigurationException(
            f"{type(module).__name__} returned {shape}, expected logits (M, N) or (M, T, N)."
        )
    return output


def _at_last(x: Tensor) -> Tensor:
    return x[:, -1] if x.ndim == 3 else x


def _datamodule(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
