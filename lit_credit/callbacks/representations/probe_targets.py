"""The targets of linear probes: classes or numbers, and the half that each row belongs to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from lit_credit.callbacks.representations.unit_features import double, rows_for

__all__ = ["MOST_CLASSES", "ProbeTargets", "probe_targets"]

MOST_CLASSES = 1024
"""Classes that a probe tells apart: the most frequent ones of the training half."""


@dataclass(frozen=True, eq=False)
class ProbeTargets:
    """The targets of all rows of the probe, one after another, positions as rows of their own.

    Attributes:
        kind: ``accuracy`` for classes, ``r2`` for numbers.
        values: classes (M,) int64, or numbers (M, c) float64.
        trained: (M,), the rows that probes are fitted on.
        tested: (M,), the rows that they are tested on.
        classes: (K,), the classes that are told apart, the most frequent one first.
        shapes: of each chunk, the shape (N,) or (N, T, ...) of its rows.
    """

    kind: Literal["accuracy", "r2"]
    values: Tensor
    trained: Tensor
    tested: Tensor
    classes: Tensor
    shapes: Sequence[tuple[int, ...]]

    @property
    def n_outputs(self) -> int:
        """Numbers that a probe predicts for a row: K or c."""
        return len(self.classes) if self.kind == "accuracy" else self.values.shape[1]

    def encoded(self, rows: Tensor) -> Tensor:
        """What a probe is to predict for some rows: one-hot (m, K), or numbers (m, c)."""
        if self.kind == "r2":
            return self.values[rows]
        return (self.values[rows, None] == self.classes).double()

    def scores(self, predicted: Tensor, rows: Tensor, classes: Tensor | None = None) -> Tensor:
        """For predictions (m, K) whether the class is right, (m,); else squared errors (m, c).

        Args:
            predicted: for each class or output.
            rows: the rows of the probe that are predicted.
            classes: the classes in the order of the predictions; None takes ``classes``.
        """
        if self.kind == "r2":
            return (predicted - self.values[rows]).square()
        if not predicted.shape[1]:
            return torch.full((len(rows),), torch.nan, dtype=torch.float64)
        found = (self.classes if classes is None else classes)[predicted.argmax(1)]
        right = (found == self.values[rows]).double()
        return torch.where(predicted.isfinite().all(1), right, torch.nan)

    def of_net(self, output: Tensor, shape: tuple[int, ...], some: Tensor) -> Tensor | None:
        """The net's own predictions for some rows of a chunk; None if its output is not that.

        Args:
            output: logits (N, T, ..., V) for classes below V, or numbers (N, ...).
            shape: of the chunk's rows.
            some: the rows of the chunk.
        """
        rows = rows_for(output, shape)
        if rows is None:
            return None
        rows = double(rows.reshape(len(rows), -1)).cpu()
        if self.kind == "r2":
            return rows[some] if rows.shape[1:] == self.values.shape[1:] else None
        return rows[some] if rows.shape[1] > max(1, int(self.values.max())) else None

    def quality(self, total: Tensor) -> float:
        r"""Accuracy, or mean over outputs of :math:`R^2`, from the sum of :meth:`scores`.

        It is NaN without tested rows. An output that does not vary has no :math:`R^2`.
        """
        if self.kind == "accuracy":
            return float(total / self.tested.sum())
        tested = self.values[self.tested]
        spread = (tested - tested.mean(0)).square().sum(0)
        return float((1 - total / spread)[spread > 0].mean())

    @property
    def chance(self) -> float:
        """Accuracy of the most frequent class of the training half, whatever the input."""
        guess = self.values[self.tested] == self.classes[:1]
        return float(guess.double().mean()) if len(self.classes) else math.nan


def probe_targets(labels: Sequence[Tensor]) -> ProbeTargets:
    """The targets of all chunks.

    Whole numbers are classes, below 0 where there is none. Floating-point numbers are regressed on,
    unless all rows are distributions: of these the likeliest class counts. The half of a row
    depends on its place and the number of rows alone, and positions of a row share its half.

    Args:
        labels: of each chunk, (N,) or (N, T, ...) classes, or (N,) or (N, ...) numbers.
    """
    parts = [part.detach().cpu() for part in labels]
    if parts[0].is_floating_point():
        if not all(map(_are_distributions, parts)):
            return _of_numbers([part.double().reshape(len(part), -1) for part in parts])
        parts = [part.argmax(-1) for part in parts]
    return _of_classes([part.long() for part in parts])


def _of_numbers(parts: Sequence[Tensor]) -> ProbeTargets:
    values, shapes = torch.cat([*parts]), [(len(part),) for part in parts]
    first = _first_half(len(values))
    return ProbeTargets("r2", values, first, ~first, torch.empty(0), shapes)


def _of_classes(parts: Sequence[Tensor]) -> ProbeTargets:
    # (N, 1) is one class a sample, not a position.
    parts = [part[:, 0] if part.ndim == 2 and part.shape[1] == 1 else part for part in parts]
    values, shapes = torch.cat([part.flatten() for part in parts]), [p.shape for p in parts]
    positions = torch.cat([torch.full((len(p),), p[:1].numel()) for p in parts])
    first = _first_half(len(positions)).repeat_interleave(positions)
    trained, tested = (values >= 0) & first, (values >= 0) & ~first
    classes, counts = torch.unique(values[trained], return_counts=True)
    frequent = counts.argsort(descending=True, stable=True)[:MOST_CLASSES]
    return ProbeTargets("accuracy", values, trained, tested, classes[frequent], shapes)


def _first_half(rows: int) -> Tensor:
    """Which rows are of the training half: always the same ones of so many."""
    chosen = torch.randperm(rows, generator=Generator().manual_seed(0))[: rows // 2]
    return torch.zeros(rows, dtype=torch.bool).index_fill(0, chosen, True)


def _are_distributions(labels: Tensor) -> bool:
    """Whether every row is a distribution over two or more classes."""
    if labels.ndim < 2 or labels.shape[-1] < 2 or bool((labels < 0).any()):
        return False
    return bool((labels.double().sum(-1) - 1).abs().max() < 1e-3)
