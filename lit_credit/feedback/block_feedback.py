"""Feedback from unit to unit: a chain of fixed random matrices beside the net."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Size, Tensor

from lit_credit.feedback.credits import Credits, check_rows, normalized_credits
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.utils.ranges import check_range

__all__ = ["BlockFeedback"]


class BlockFeedback(LazyBuffers):
    """Fixed random matrices between neighbouring units: ``a_l = B_l a_{l+1}``.

    A unit that is skipped in a pass passes its credit on unchanged, like a skip connection:
    ``a_l = B_l a_{l+2}``. Each matrix is drawn when it is first used; the seed and the name of its
    unit determine its values.

    Args:
        units: names of the units, in forward order.
        distribution: distribution of the entries; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on every matrix.
        seed: seed of the matrices' own generator.
        normalize: scale each sample's credit to unit root mean square when it is delivered.
    """

    def __init__(
        self,
        units: Sequence[str],
        distribution: Distribution = "normal",
        scale: float = 1.0,
        seed: int = 0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
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
            ValueError: if the sizes differ from those that the matrices were drawn for, or if the
                rows of a unit are not those of the next one.
        """
        ran = [name for name in self.units if name in shapes]
        credits = dict.fromkeys(ran[-1:], top)
        for lower, upper in reversed(list(pairwise(ran))):
            above = credits[upper].shape
            check_rows(lower, shapes[lower], above, f"credit of unit {upper!r}")
            credits[lower] = self._carry(lower, credits[upper], shapes[lower])

        chain = Credits(credits.__getitem__)
        return normalized_credits(chain, shapes, scale) if self.normalize else chain

    def _carry(self, name: str, credit: Tensor, shape: Size) -> Tensor:
        # Equal leading dimensions (N, d) or (N, T, d): one matrix for every position.
        if credit.shape[:-1] != shape[:-1] or len(shape) > 3:
            width, credit = shape[1:].numel(), credit.flatten(1)
        else:
            width = shape[-1]
        matrix = self._matrix(name, (width, credit.shape[-1]), credit.device)
        return (credit @ matrix.to(credit.dtype).T).reshape(shape)

    def _matrix(self, name: str, size: tuple[int, int], device: torch.device) -> Tensor:
        buffer = f"unit_{self.units.index(name)}"
        if getattr(self, buffer, None) is None:
            # Training could not use a tensor that was made under inference_mode.
            with torch.inference_mode(False):
                self.register_buffer(buffer, self._draw(name, size))
        matrix: Tensor = getattr(self, buffer).to(device)
        if matrix.shape != size:
            raise ValueError(
                f"the feedback matrix of unit {name!r} is {tuple(matrix.shape)}, but the units' "
                f"outputs need {size}. It was drawn for the first batch or loaded from a "
                "checkpoint: keep the shapes of net and data."
            )
        setattr(self, buffer, matrix)
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
