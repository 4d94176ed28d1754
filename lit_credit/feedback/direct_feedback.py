"""Direct feedback: fixed random matrices from the output error to every unit."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Size, Tensor
from torch.nn.functional import linear

from lit_credit.feedback.credit import (
    Credits,
    Factors,
    channel_dim,
    in_shape,
    normalized_credits,
)
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["DirectFeedback", "ErrorShape"]

ErrorShape = Literal["auto", "flattened", "per_position"]


class DirectFeedback(LazyBuffers):
    """Fixed random matrices from the error straight to every unit: ``a_l = e B_l^T``.

    The matrices are drawn when first used, because only then the units' shapes are known; the
    seed alone decides their values.

    Args:
        units: names of the units, in forward order.
        distribution: of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: of the matrices' own generator.
        shared: True gives all units the same matrix (they must have equal sizes); a dict names,
            for some units, the unit whose matrix they use: ``{"embed": "blocks.0"}``.
        error: ``flattened``: all features of a unit's output (F) see all entries of a sample's
            error (E), B_l is (F, E). ``per_position``: B_l is (d, C) on the last dimensions, and
            the same at every position; an error without positions reaches all of them alike.
            ``auto``: per position where the output has the error's positions (N, T, C), else
            flattened, as feature maps (N, C, H, W) are. For those take the
            distribution ``xavier`` under SGD: with N(0, 1 / E) each of C H W entries gets a credit
            as large as a lone unit's, and a filter the sum of H W of them.
        normalize: scale each sample's credit to unit root mean square; see
            :func:`rms_normalized`.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7.
    """

    matrix: Tensor | None

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        shared: bool | Mapping[str, str] = False,
        error: ErrorShape = "auto",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if distribution in ("weight", "weight_std"):
            raise ValueError(
                f"`distribution` is {distribution!r}, but direct feedback has no weight of its "
                "shape. Choose normal, uniform, kaiming, xavier, orthogonal or constant."
            )
        check_range(scale=scale, seed=seed)
        self.source = _sources(units, shared)
        self.distribution: Distribution = distribution
        self.scale = scale
        self.seed = seed
        self.error: ErrorShape = error
        self.normalize = normalize
        self.register_buffer("matrix", None)

    def forward(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float = 1.0
    ) -> Credits:
        """Send the error to every unit.

        Args:
            error: e = d loss / d output, (N, ..., C), of a loss that averages over samples.
            shapes: of each unit's output.
            scale: factor on the loss.

        Returns:
            How to compute the credit of a unit.

        Raises:
            ValueError: if the sizes differ from those that the matrices were drawn for, or a unit's
                rows are not those of the error.
        """
        _check_rows(error, shapes)
        per_position = {self._per_position(error, shape) for shape in shapes.values()}
        if len(per_position) > 1:
            raise ValueError(
                "`error`: some units have the positions of the error and some have not. Set it to "
                "'flattened' or 'per_position'."
            )
        positions = per_position == {True}
        rows = error if positions else error.flatten(1)
        if positions and error.dim() > 3:
            raise ValueError(
                f"`error` is 'per_position', but the error is a feature map {tuple(error.shape)}. "
                "Set it to 'flattened'."
            )
        widths = self._widths(shapes, positions)
        parts = torch.split(self._matrix_for(widths, rows).to(rows.dtype), list(widths.values()))
        matrices = dict(zip(widths, parts, strict=True))

        def factors(name: str) -> Factors:
            return Factors(rows, matrices[self.source[name]])

        def dense(name: str) -> Tensor:
            return in_shape(linear(*factors(name)), shapes[name])

        credits = Credits(dense, factors)
        return normalized_credits(credits, shapes, scale) if self.normalize else credits

    def _widths(self, shapes: Mapping[str, Size], positions: bool) -> dict[str, int]:
        """Rows of each matrix, by the unit that it is named after, in the order of the units."""
        widths: dict[str, int] = {}
        for name in self.source:
            shape = shapes[name]
            width = shape[channel_dim(shape)] if positions else shape[1:].numel()
            if widths.setdefault(self.source[name], width) != width:
                raise ValueError(
                    f"`shared`: unit {name!r} has {width} features, and {self.source[name]!r}, "
                    f"whose matrix it uses, has {widths[self.source[name]]}. Share between units "
                    "of one size."
                )
        return widths

    def _per_position(self, error: Tensor, shape: Size) -> bool:
        if self.error != "auto":
            return self.error == "per_position"
        # An error of four dimensions is a feature map (N, C, H, W).
        return error.dim() == 3 and shape[:-1] == error.shape[:-1]

    def _matrix_for(self, widths: Mapping[str, int], rows: Tensor) -> Tensor:
        size = (sum(widths.values()), rows.shape[-1])
        if self.matrix is None:
            # Under inference_mode this would be a tensor that training may not use.
            with torch.inference_mode(False):
                drawn = [self._draw(name, width, size[1]) for name, width in widths.items()]
                self.matrix = torch.cat(drawn)
        if self.matrix.shape != size:
            raise ValueError(
                f"the feedback matrices are {tuple(self.matrix.shape)}, but the units' outputs and "
                f"the error need {size}. They were drawn for the first batch or loaded from a "
                "checkpoint: keep the shapes of net and data, or set `error` to 'per_position' "
                "where the number of positions varies."
            )
        if self.matrix.device != rows.device:
            self.matrix = self.matrix.to(rows.device)
        return self.matrix

    def _draw(self, name: str, width: int, errors: int) -> Tensor:
        return draw_feedback(
            (width, errors),
            fan_in=errors,
            fan_out=width,
            distribution=self.distribution,
            scale=self.scale,
            seed=derive_seed(self.seed, name),
        )


def _check_rows(error: Tensor, shapes: Mapping[str, Size]) -> None:
    for name, shape in shapes.items():
        if shape[:1] != error.shape[:1]:
            raise ValueError(
                f"unit {name!r} returns {tuple(shape)}, but the error is {tuple(error.shape)}: "
                "direct feedback sends each row of the error to the same row of a unit, and cannot "
                "know which nodes, tokens or parts belong to which sample. Put the batch first "
                "(`batch_first=True`), choose as units what has a row a sample, or train such a "
                "net by BlockFA or FA."
            )


def _sources(units: Sequence[str], shared: bool | Mapping[str, str]) -> dict[str, str]:
    """For each unit the unit whose matrix it uses."""
    if isinstance(shared, bool):
        return {name: units[0] if shared else name for name in units}
    unknown = [name for pair in shared.items() for name in pair if name not in units]
    if unknown:
        raise ValueError(
            f"`shared` names {unknown[0]!r}, which is not a unit. Choose from: "
            f"{choice(units, unknown[0])}."
        )
    return {name: shared.get(name, name) for name in units}
