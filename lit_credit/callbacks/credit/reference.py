"""The exact gradient in float64, as a reference for gradients in lower precision."""

import math
from collections.abc import Sequence
from traceback import walk_tb
from types import TracebackType
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_credit.callbacks.base.chunk import Chunk, Gradients
from lit_credit.callbacks.credit.double_mode import raised
from lit_credit.callbacks.credit.double_precision import double_precision
from lit_credit.functional import gradient_cosine
from lit_credit.inspect.capture import Point
from lit_credit.utils.compiled import named_submodules
from lit_credit.utils.nested import map_tensors

__all__ = ["DoubleReference", "Reference"]


class Reference(NamedTuple):
    """The comparison of an exact gradient with that of float64.

    Attributes:
        cosines: for each point (N,), each sample's cosine; NaN if float64 is unavailable.
        share_below: share of the reference's operations that were still below float64; NaN if
            float64 is unavailable.
    """

    cosines: list[Tensor]
    share_below: float


class DoubleReference:
    """Computes gradients in float64, and says once if the module cannot.

    Args:
        callback: the diagnostic, for the message.
    """

    def __init__(self, callback: Callback) -> None:
        self._name = type(callback).__name__
        self._told = False

    def compare(self, chunk: Chunk, gradients: Gradients) -> Reference:
        """Compare gradients with those of float64.

        Args:
            chunk: the chunk that ``gradients`` were computed on.
            gradients: the result of ``chunk.gradients``.
        """
        module = chunk.module
        undefined = Reference(
            [torch.full((len(g),), torch.nan) for _, g in gradients.values()], math.nan
        )
        if module.device.type == "mps":
            self._tell("the device mps has no float64")
            return undefined
        mode = None
        try:
            with double_precision(module) as mode:
                double = chunk.on(map_tensors(chunk.batch, raised)).gradients(list(gradients))
            cosines = [gradient_cosine(g, double[point][1]) for point, (_, g) in gradients.items()]
        except Exception as error:  # of any kind: the module has just run in its own precision
            self._tell(_reason(module, error, mode.failed if mode else None))
            return undefined
        return Reference(cosines, mode.share_below)

    def prove(self, chunk: Chunk, points: Sequence[Point]) -> dict[str, float]:
        """Prove that no operation of the float64 pass is below it, for a history's first row."""
        share = self.compare(chunk, chunk.gradients(points)).share_below
        return {"the reference is float64; share of operations below it": share}

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            rank_zero_info(f"{self._name}: the float64 reference is n/a, because {reason}.")


def _reason(module: nn.Module, error: Exception, operation: str | None) -> str:
    """The submodule and the operation that do not run in float64, in one line."""
    names = {id(child): name for name, child in named_submodules(module) if name}
    running = [names[id(own)] for own in _owners(error.__traceback__) if id(own) in names]
    where = f"{running[-1]!r}" if running else type(module).__name__
    what = f" ({operation})" if operation else ""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0].rstrip('.') if lines else ''}"
    return f"{where} does not run in float64{what}: {said}"


def _owners(traceback: TracebackType | None) -> list[Any]:
    return [frame.f_locals.get("self") for frame, _ in walk_tb(traceback)]
