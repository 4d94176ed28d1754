"""Direct feedback: matrices from the output error to every unit."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Size, Tensor

from lit_credit.feedback.credits import (
    Credits,
    Factors,
    channel_dim,
    check_rows,
    in_shape,
    normalized_credits,
)
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.stacked_matrices import StackedMatrices

__all__ = ["DirectFeedback", "ErrorShape"]

ErrorShape = Literal["auto", "flattened", "per_position"]


class DirectFeedback(StackedMatrices):
    """Fixed random matrices from the error straight to every unit: ``a_l = e B_l^T``.

    Each matrix is drawn when its unit first runs. :class:`StackedMatrices` holds them.

    Args:
        units: names of the units, in forward order.
        distribution: distribution of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: seed of the matrices' own generator.
        shared: True gives all units the same matrix (they must have equal sizes); a dict maps a
            unit to the unit whose matrix it uses: ``{"embed": "blocks.0"}``.
        error: ``flattened``: all features of a unit's output (F) see all entries of a sample's
            error (E), B_l is (F, E). ``per_position``: B_l is (d, C) on the last dimensions, the
            same at every position; an error without positions reaches all positions equally.
            ``auto``: per position if the output has the error's positions (N, T, C), else
            flattened, for example for feature maps (N, C, H, W). Under SGD use the distribution
            ``xavier`` for feature maps: with N(0, 1 / E) each of C H W entries gets a credit as
            large as a single unit's, and a filter the sum of H W of them.
        normalize: scale each sample's credit to unit root mean square; see
            :func:`rms_normalized`.
        rank: None draws full matrices. A number r draws B_l = Q_l P of rank r, Q_l (F, r) for each
            unit and one P (r, E) for all: errors are projected once, and the matrices shrink by
            r / E. Entries of B have the variance that they have without.
        learned: the matrices Q_l, or B_l, are a parameter, whose gradient is left to the caller.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7. Low rank: Hanut, Kadmon, Training Large Neural Networks With
        Low-Dimensional Error Feedback, 2025, arXiv 2502.20580; their P learns, ours is fixed.
    """

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        shared: bool | Mapping[str, str] = False,
        error: ErrorShape = "auto",
        normalize: bool = False,
        rank: int | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__(units, distribution, scale, seed, shared, rank, learned)
        self.error: ErrorShape = error
        self.normalize = normalize

    def forward(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float = 1.0
    ) -> Credits:
        """Send the error to every unit.

        Args:
            error: e = d loss / d output, (N, ..., C), of a loss that averages over samples.
            shapes: shape of the output (N, ...) of each unit that ran.
            scale: factor on the loss.

        Returns:
            Functions that compute the credit of a unit.

        Raises:
            ValueError: if the sizes differ from those that the matrices were drawn for, or if the
                rows of a unit are not those of the error.
        """
        rows, positions = self._rows(error, shapes)
        rows = self.projected(rows)
        found = {
            name: Factors(rows, matrix, shared=self._serves[name] > 1)
            for name, matrix in self.matrices(self._widths_of(shapes, positions), rows).items()
        }

        def factors(name: str) -> Factors:
            return found[self.source[name]]

        def dense(name: str) -> Tensor:
            return in_shape(factors(name).product(), shapes[name])

        credits = Credits(dense, factors)
        return normalized_credits(credits, shapes, scale) if self.normalize else credits

    def gradient(self, error: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The sum over rows of ``f_l e``, in the shape of ``matrix``, f_l the units' outputs.

        Args:
            error: as in :meth:`forward`.
            outputs: output (N, ...) of each unit that ran.
        """
        shapes = {name: output.shape for name, output in outputs.items()}
        rows, positions = self._rows(error, shapes)
        rows = self.projected(rows)
        flat_rows = rows.reshape(-1, rows.shape[-1])
        parts: dict[str, Tensor] = {}
        for name, output in outputs.items():
            flat = _as_rows(output, rows) if positions else output.flatten(1)
            product = flat.to(rows.dtype).reshape(len(flat_rows), -1).T @ flat_rows
            source = self.source[name]
            parts[source] = parts[source] + product if source in parts else product
        widths = {name: len(part) for name, part in parts.items()}
        drawn = self.known_widths(widths)
        zeros = {name: rows.new_zeros(width, rows.shape[-1]) for name, width in drawn.items()}
        return torch.cat([parts.get(name, zeros[name]) for name in drawn])

    def _widths_of(self, shapes: Mapping[str, Size], positions: bool) -> dict[str, int]:
        """Rows of each matrix in use, by the unit that the matrix is named after."""
        widths: dict[str, int] = {}
        for name, shape in shapes.items():
            width = shape[channel_dim(shape)] if positions else shape[1:].numel()
            if widths.setdefault(self.source[name], width) != width:
                raise ValueError(
                    f"`shared`: unit {name!r} has {width} features, and {self.source[name]!r}, "
                    f"whose matrix it uses, has {widths[self.source[name]]}. Share between units "
                    "of one size."
                )
        return widths

    def _rows(self, error: Tensor, shapes: Mapping[str, Size]) -> tuple[Tensor, bool]:
        """The rows of the error, and whether they are positions of sequences."""
        for name, shape in shapes.items():
            check_rows(name, shape, error.shape, "error")
        per_position = {self._per_position(error, shape) for shape in shapes.values()}
        if len(per_position) > 1:
            raise ValueError(
                "`error`: some units have the positions of the error and some have not. Set it to "
                "'flattened' or 'per_position'."
            )
        positions = per_position == {True}
        if positions and error.dim() > 3:
            raise ValueError(
                f"`error` is 'per_position', but the error is a feature map {tuple(error.shape)}. "
                "Set it to 'flattened'."
            )
        return (error if positions else error.flatten(1)), positions

    def _per_position(self, error: Tensor, shape: Size) -> bool:
        if self.error != "auto":
            return self.error == "per_position"
        # An error of four dimensions is a feature map (N, C, H, W).
        return error.dim() == 3 and shape[:-1] == error.shape[:-1]


def _as_rows(output: Tensor, rows: Tensor) -> Tensor:
    """A unit's output with one row for each row of the error, its features last."""
    if channel_dim(output.shape) == 1:
        output = output.movedim(1, -1)
    extra = output.dim() - rows.dim()
    return output.sum(tuple(range(1, 1 + extra))) if extra > 0 else output
