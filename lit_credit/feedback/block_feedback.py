"""Feedback from unit to unit: a chain of fixed random matrices beside the net."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Literal, get_args

import torch
from torch import Size, Tensor

from lit_credit.feedback.credits import Credits, check_rows, normalized_credits
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.maps import spread
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["BlockFeedback", "MapFeedback"]

MapFeedback = Literal["per_channel", "channels_last", "dense"]

_REMEDY = (
    "Take one matrix between channels for feature maps (`feedback_maps: per_channel`, or `maps` of "
    "BlockFeedback), or choose units with smaller outputs."
)


class BlockFeedback(LazyBuffers):
    """Fixed random matrices between neighbouring units: ``a_l = B_l a_{l+1}``.

    A unit that is skipped in a pass passes its credit on unchanged, like a skip connection:
    ``a_l = B_l a_{l+2}``. Each matrix is drawn when it is first used; the seed and the name of its
    unit determine its values.

    Between feature maps B_l is (C, C') from channels to channels, the same at every position:
    ``a_l[n, c, p] = sum_c' B_l[c, c'] R(a_{l+1})[n, c', p]``. R is the adjoint of average pooling
    from the positions of unit l to those of unit l + 1 (``lit_credit.feedback.maps.spread``), so
    that the credit of a smaller map is divided among the pixels that it stands for. A flat output
    (N, F) counts as a map of one position, and a sequence (N, T, d) beside a map as one row of T
    positions. With B = W this is the gradient through pooling and a 1 x 1 convolution.

    Args:
        units: names of the units, in forward order.
        distribution: distribution of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: seed of the matrices' own generator.
        normalize: scale each sample's credit to unit root mean square when it is delivered.
        maps: for feature maps, outputs of four or more dimensions: ``per_channel`` as above, with
            channels second (N, C, H, W); ``channels_last`` for maps (N, H, W, C), as in Swin
            transformers; ``dense`` is one matrix between all entries of two maps, whose size is the
            product of theirs. Matrices of a checkpoint keep the shape that they have.

    Raises:
        ValueError: if an argument is invalid.
    """

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        normalize: bool = False,
        maps: MapFeedback = "per_channel",
    ) -> None:
        super().__init__()
        check_choice(get_args(MapFeedback), maps=maps)
        if distribution in ("weight", "weight_std"):
            raise ValueError(
                f"`distribution` is {distribution!r}, but a matrix between units has no weight "
                "of its shape. Choose normal, uniform, kaiming, xavier, orthogonal or constant."
            )
        check_range(scale=scale, seed=seed)
        self.units = list(units)
        self.distribution: Distribution = distribution
        self.scale = scale
        self.seed = seed
        self.normalize = normalize
        self.maps: MapFeedback = maps
        self.net_size: int | None = None
        """Numbers of the net, if known: what the size of the matrices is judged by."""
        self._warned = False

    def forward(
        self, top: Tensor, shapes: Mapping[str, Size], scale: Tensor | float = 1.0
    ) -> Credits:
        """Carry the credit of the last unit down to the first.

        Args:
            top: credit of the output of the last unit that ran, of the output's shape.
            shapes: shape of the output of each unit that ran.
            scale: factor on the loss.

        Returns:
            Functions that compute the credit of a unit.

        Raises:
            ValueError: if the sizes differ from those that the matrices were drawn for, if the rows
                of a unit are not those of the next one, or if matrices that are to be drawn do not
                fit into the memory.
        """
        ran = [name for name in self.units if name in shapes]
        neighbours = list(pairwise(ran))
        above = {lower: shapes[upper] for lower, upper in neighbours}
        above |= {lower: top.shape for lower, _ in neighbours[-1:]}
        for lower, upper in neighbours:
            check_rows(lower, shapes[lower], above[lower], f"credit of unit {upper!r}")
        missing = {
            lower: self._sizes(shapes[lower], shape)[self._layout(shapes[lower], shape)]
            for lower, shape in above.items()
            if getattr(self, self._buffer(lower), None) is None
        }
        check_matrix_sizes(missing, _REMEDY, self.net_size)
        credits = dict.fromkeys(ran[-1:], top)
        for lower, upper in reversed(neighbours):
            credits[lower] = self._carry(lower, credits[upper], shapes[lower])

        chain = Credits(credits.__getitem__)
        return normalized_credits(chain, shapes, scale) if self.normalize else chain

    def _carry(self, name: str, credit: Tensor, shape: Size) -> Tensor:
        sizes = self._sizes(shape, credit.shape)
        layout = self._layout(shape, credit.shape)
        drawn: Tensor | None = getattr(self, self._buffer(name), None)
        if drawn is not None and drawn.shape != sizes[layout]:
            layout = self._layout_of(drawn, sizes, layout)
        matrix = self._matrix(name, sizes[layout], credit.device).to(credit.dtype)
        if layout == "channels":
            return self._carry_channels(credit, shape, matrix)
        if layout == "flat":
            credit = credit.flatten(1)
        return (credit @ matrix.T).reshape(shape)

    def _carry_channels(self, credit: Tensor, shape: Size, matrix: Tensor) -> Tensor:
        credit = credit.movedim(self._channel(credit.shape), 1)
        channel = self._channel(shape)
        positions = [size for index, size in enumerate(shape) if index not in (0, channel)]
        whole = positions
        own = credit.shape[2:]
        if not own or not positions:
            credit = credit[(..., *(None,) * (len(positions) - len(own)))]
            positions = positions or [1] * len(own)
        elif len(own) != len(positions):
            credit, positions = credit.flatten(2), [prod(positions)]
        # Mixing and resampling commute; mix where there are fewer positions.
        last = prod(positions) < credit.shape[2:].numel()
        if last:
            credit = spread(credit, positions)
        mixed = (matrix @ credit.flatten(2)).reshape(len(credit), -1, *credit.shape[2:])
        if not last:
            mixed = spread(mixed, positions)
        carried: Tensor = mixed.reshape(len(credit), len(matrix), *whole).movedim(1, channel)
        return carried

    def _channel(self, shape: Size) -> int:
        """The dimension of channels: last in (N, d) and (N, T, d), second in maps (N, C, H, W)."""
        return 1 if len(shape) > 3 and self.maps != "channels_last" else len(shape) - 1

    def _sizes(self, lower: Size, upper: Size) -> dict[str, tuple[int, int]]:
        """Rows and columns of a matrix by what it acts on."""
        return {
            "last": (lower[-1], upper[-1]),
            "flat": (lower[1:].numel(), upper[1:].numel()),
            "channels": (lower[self._channel(lower)], upper[self._channel(upper)]),
        }

    def _layout(self, lower: Size, upper: Size) -> str:
        """What a matrix acts on: the last dimension, all entries, or the channels of maps."""
        if self.maps != "dense" and max(len(lower), len(upper)) > 3:
            return "channels"
        # Equal leading dimensions (N, d) or (N, T, d): one matrix for every position.
        return "flat" if lower[:-1] != upper[:-1] or len(lower) > 3 else "last"

    def _layout_of(self, drawn: Tensor, sizes: Mapping[str, tuple[int, int]], layout: str) -> str:
        """The layout of a checkpoint's matrix, if it is the other one of maps."""
        other = {"channels": "flat", "flat": "channels"}.get(layout)
        if other is None or drawn.shape != sizes[other]:
            return layout  # `_matrix` refuses it
        if not self._warned:
            self._warned = True
            kind = "dense" if other == "flat" else "per channel"
            warnings.warn(
                f"the checkpoint's feedback matrices of feature maps are {kind}, and this run asks "
                f"for {self.maps!r} (`feedback_maps`). The run goes on with the checkpoint's.",
                stacklevel=2,
            )
        return other

    def _buffer(self, name: str) -> str:
        return f"unit_{self.units.index(name)}"

    def _matrix(self, name: str, size: tuple[int, int], device: torch.device) -> Tensor:
        buffer = self._buffer(name)
        if getattr(self, buffer, None) is None:
            # Training could not use a tensor that was made under inference_mode.
            with torch.inference_mode(False):
                self.register_buffer(buffer, self._draw(name, size))
        matrix: Tensor = getattr(self, buffer)
        if matrix.device != device:
            matrix = matrix.to(device)
            setattr(self, buffer, matrix)
        if matrix.shape != size:
            raise ValueError(
                f"the feedback matrix of unit {name!r} is {tuple(matrix.shape)}, but the units' "
                f"outputs need {size}. It was drawn for the first batch or loaded from a "
                "checkpoint: keep the shapes of net and data."
            )
        return matrix

    def _draw(self, name: str, size: tuple[int, int]) -> Tensor:
        return draw_feedback(
            size,
            fan_in=size[1],
            fan_out=size[0],
            distribution=self.distribution,
            scale=self.scale,
            seed=derive_seed(self.seed, name),
        )
