"""The base class of diagnostics that measure along the residual stream."""

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import declares_units, no_units, point_text, stream_points
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.inspect.capture import Point
from lit_credit.inspect.stacks import chained_stacks, repeated_blocks
from lit_credit.utils.short_text import choice

__all__ = ["StreamDiagnostic"]


class StreamDiagnostic(ProbeDiagnostic):
    """A diagnostic of the points h_0 .. h_L of the residual stream.

    These are the points of :func:`lit_credit.callbacks.base.stream_points` where ``units`` are
    given or the module declares some. Any other module is searched for its blocks: two or more
    neighbours of one class in a container, such as ``transformer.h`` or ``model.layers``. They are
    taken if, on a few rows of the probe, each block reads to the bit what the one before returns,
    and if there is only one such stack. A line says what was taken, and the first row of the
    history states it.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.

    Raises:
        MisconfigurationException: if the module declares no units, none are given, and there is not
            exactly one stack of blocks; in ``setup`` if there is none, else before the first step.
    """

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the points of the residual stream, or the stacks that may be it."""
        unknown = self.units is None and not declares_units(module)
        self._stacks = repeated_blocks(module) if unknown else []
        self._points = [] if self._stacks else stream_points(self, module, self.units)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """State which stack was taken if it was searched for."""
        points = self.stream(chunk)
        if not self._stacks:
            return {}
        first, last = (_short(point.module) for point in (points[0], points[-1]))
        return {f"each block reads what the one before returns, from {first!r} to {last!r}": 0.0}

    def stream(self, chunk: Chunk) -> list[Point]:
        """The points of the residual stream, searched for on the first chunk if need be."""
        if not self._points:
            module = chunk.module
            found = chained_stacks(module, chunk.few().forward, self._stacks)
            if len(found) > 1:
                raise self._undecided(module, found)
            if not found:
                raise no_units(self, module)
            (names,) = found
            self._points = stream_points(self, module, names)
            rank_zero_info(
                f"{type(self).__name__} takes {_short(names[0])} .. {_short(names[-1])} as the "
                f"residual stream, {len(names)} blocks, each of which reads what the one before "
                "returns. Set `units` for others."
            )
        return self._points

    @property
    def layer_texts(self) -> list[str]:  # type: ignore[override]
        """The points of the residual stream."""
        return list(map(point_text, self._points))

    def _undecided(self, module: LightningModule, found: list[list[str]]) -> Exception:
        kind, stacks = type(module).__name__, choice(map(_pattern, found), separator="; ")
        return MisconfigurationException(
            f"{type(self).__name__}: {kind} has {len(found)} stacks of blocks, and "
            f"each may be the residual stream. Set `units` to one of: {stacks}."
        )


def _short(name: str) -> str:
    return name.removeprefix("net.")


def _pattern(names: list[str]) -> str:
    """``['layers.*']`` for the blocks of a stack."""
    parent = _short(names[0]).rpartition(".")[0]
    return f"['{parent}.*']" if parent else "['*']"
