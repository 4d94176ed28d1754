"""Finding the targets of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lit_credit.protocols import ModuleProtocol, TaskProtocol, asked, method
from lit_credit.utils.nested import first_tensor

__all__ = ["given_target", "unshifted_labels"]

_NAMES = ("target", "labels", "label", "y")


def given_target(module: nn.Module, batch: Any) -> Tensor | None:
    """The targets as they are in a batch, or None.

    For a rule these are ``module.task.target(batch)``. Otherwise they are ``target``, ``labels``,
    ``label`` or ``y`` of a mapping, or the second item of a sequence.
    """
    target = method(asked(module, ModuleProtocol.task, None), TaskProtocol.target)
    found: Any = None
    if target is not None:
        found = target(batch)
    elif isinstance(batch, Mapping):
        found = next((batch[name] for name in _NAMES if name in batch), None)
    elif isinstance(batch, Sequence) and len(batch) > 1:
        found = batch[1]
    return first_tensor(found)


def unshifted_labels(labels: Tensor, batch: Any) -> Tensor:
    """The labels, each moved to the position that predicts it; -100 where there is none.

    Labels (N, T) that repeat the mapping's ``input_ids`` belong to a causal model of Hugging Face,
    which shifts them itself: the next label is correct. Other labels stay as they are.
    """
    tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
    return pad(labels[:, 1:], (0, 1), value=-100) if _repeats(labels, tokens) else labels


def _repeats(labels: Tensor, tokens: Any) -> bool:
    """Whether every label of (N, T) that is not negative equals the token at its place."""
    if not isinstance(tokens, Tensor) or labels.ndim != 2 or labels.shape != tokens.shape:
        return False
    return bool(torch.where(labels < 0, True, labels == tokens).all())
