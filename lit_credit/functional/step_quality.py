"""Where on a parabola a step ends."""

import torch
from torch import Tensor

from lit_credit.functional._rows import check_same_shape, in_float64

__all__ = ["fitted_minimum", "step_alpha"]


def fitted_minimum(scales: Tensor, losses: Tensor, tolerance: float = 1e-6) -> Tensor:
    r"""Where the parabola that fits the loss along a line has its minimum.

    .. math:: L(s) \approx a + b s + c s^2, \quad s^* = -b / (2 c)

    The fit is that of least squares.

    Args:
        scales: (S,) s, three or more different places on the line.
        losses: (S,) L, the loss at each place.
        tolerance: the curvature c counts as known if it exceeds this share of the largest loss,
            about what a loss in float32 is rounded by.

    Returns:
        () float64, in the unit of ``scales``; NaN if the parabola is not convex, or if its
        curvature is not larger than rounding, or if an argument is not finite.

    Raises:
        ValueError: if the shapes differ, or there are fewer than three places.

    Example:
        >>> s = torch.tensor([0.0, 1.0, 2.0])
        >>> round(fitted_minimum(s, 3 * (s - 0.5) ** 2 + 7).item(), 6)
        0.5
    """
    check_same_shape(scales, losses, ("scales", "losses"))
    if scales.dim() != 1 or len(scales) < 3:
        raise ValueError(
            f"`scales` has shape {tuple(scales.shape)}, expected (S,) with S at least 3: a "
            "parabola has three coefficients. Give more places."
        )
    s, values = in_float64(scales.detach()), in_float64(losses.detach())
    if not (s.isfinite() & values.isfinite()).all():
        return values.new_tensor(torch.nan)
    largest = values.abs().max()
    scaled = (values / torch.where(largest > 0, largest, 1.0))[:, None]
    _, b, c = torch.linalg.lstsq(torch.stack([s**0, s, s**2], 1), scaled).solution[:, 0]
    return torch.where(c > tolerance, -b / (2 * c), torch.nan)


def step_alpha(scales: Tensor, losses: Tensor, tolerance: float = 1e-6) -> Tensor:
    r"""Where a step ends, beside the minimum of the parabola along it.

    .. math:: \alpha = (1 - s^*) / s^*

    The step begins at s = 0 and ends at s = 1. Its alpha is -1 if it hardly moves, 0 if it ends at
    the minimum :math:`s^*`, and 1 if it goes as far beyond the minimum as the minimum is away from
    its beginning, where the loss is again that of the beginning.

    Args:
        scales: (S,) s, three or more different places along the step.
        losses: (S,) the loss at each place.
        tolerance: see :func:`fitted_minimum`.

    Returns:
        () float64, above -1; NaN where :func:`fitted_minimum` is NaN, or if the minimum is not
        ahead: the step begins uphill.

    Raises:
        ValueError: as :func:`fitted_minimum`.

    Example:
        >>> s = torch.tensor([0.0, 1.0, 2.0])
        >>> [round(step_alpha(s, (s - end) ** 2).item(), 6) for end in (2.0, 1.0, 0.5)]
        [-0.5, 0.0, 1.0]

    Reference:
        Schneider, Dangel, Hennig, "Cockpit: A Practical Debugging Tool for the Training of Deep
        Neural Networks", 2021, arXiv 2102.06604, section 2.1, whose alpha is of this kind.
    """
    minimum = fitted_minimum(scales, losses, tolerance)
    return torch.where(minimum > 0, (1 - minimum) / minimum, torch.nan)
