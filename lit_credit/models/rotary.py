"""Rotary positions: rotating queries and keys by angles that depend on the position."""

from typing import Literal

import torch
from torch import Tensor, nn

from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["Rotary"]


class Rotary(nn.Module):
    r"""Rotates pairs of features of a query or key by an angle proportional to its position.

    Features 2i and 2i + 1 at position p are rotated by :math:`p\,\theta^{-2i/d}`. So the score of a
    query at m and a key at n depends on n - m alone: :math:`q^\top \mathrm{Rot}(n - m)\,k`.

    Args:
        features: features d of a head, an even number.
        theta: base of the frequencies.

    Raises:
        ValueError: if ``features`` is odd.

    Example:
        >>> q = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # positions 0 and 1
        >>> Rotary(2)(q)[1]  # turned by one radian
        tensor([0.5403, 0.8415])

    Reference:
        Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021,
        arXiv 2104.09864, section 3.2.
    """

    layout: Literal["interleaved", "half"] = "interleaved"
    """Which features form a pair: neighbours, as here, or i and i + d/2."""

    def __init__(self, features: int, theta: float = 10_000.0) -> None:
        super().__init__()
        check_sizes(features=features)
        check_range(above=0, theta=theta)
        if features % 2:
            raise ValueError(
                f"a head has {features} features, which are turned in pairs; expected an even "
                "number. Change `width` or `heads`."
            )
        self.features, self.theta = features, theta

    @property
    def frequencies(self) -> Tensor:
        """(d / 2,), radians per position, in single precision for a module of any precision."""
        return self._frequencies(torch.device("cpu"))

    def _frequencies(self, device: torch.device) -> Tensor:
        # Not a buffer: `bf16-true` would round it, and positions 400 and 401 would be the same.
        # Computed on the device itself: a copy to a GPU in every forward pass would block.
        exponents = torch.arange(0, self.features, 2, device=device) / self.features
        return torch.as_tensor(self.theta**-exponents)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., T, d), positions 0 .. T - 1, to (..., T, d)."""
        precision = torch.promote_types(x.dtype, torch.float32)
        frequencies = self._frequencies(x.device).to(precision)
        positions = torch.arange(x.shape[-2], device=x.device, dtype=frequencies.dtype)
        angles = positions[:, None] * frequencies  # (T, d/2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
