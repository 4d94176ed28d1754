"""Feedback from the error at the output to the input of a net."""

import torch
from torch import Tensor

from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.lazy_buffers import LazyBuffers
from lit_credit.feedback.sizes import check_matrix_sizes
from lit_credit.utils.ranges import check_range

__all__ = ["InputFeedback"]


class InputFeedback(LazyBuffers):
    """A fixed random matrix F from the error of a sample to its input: ``e F^T``.

    ``matrix`` (I, E), I the numbers of an input and E those of an error, is drawn when it is first
    used. The variance of its entries is ``scale^2 2 / I``, as that of weights from I numbers by He.

    Args:
        distribution: shape of the distribution; see :func:`lit_credit.feedback.draw_feedback`.
        scale: factor on the matrix.
        seed: seed of the matrix's own generator.

    Example:
        >>> feedback = InputFeedback("constant", scale=1.0, seed=0)
        >>> round(feedback(torch.ones(2, 3), torch.zeros(2, 8))[0, 0].item(), 3)
        1.5
    """

    matrix: Tensor | None

    def __init__(
        self, distribution: Distribution = "uniform", scale: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__()
        if distribution in ("weight", "weight_std"):
            raise ValueError(
                f"`distribution` is {distribution!r}, but no weight has the shape of F. Choose "
                "normal, uniform, kaiming, xavier, orthogonal or constant."
            )
        check_range(scale=scale, seed=seed)
        self.distribution: Distribution = distribution
        self.scale = scale
        self.seed = seed
        self.register_buffer("matrix", None)

    def forward(self, error: Tensor, x: Tensor) -> Tensor:
        """The error (N, ...) as it meets the inputs ``x`` (N, ...), in their shape and type.

        Raises:
            ValueError: if the sizes differ from those that the matrix was drawn for.
        """
        errors = error.flatten(1)
        size = x[0].numel(), errors.shape[1]
        if self.matrix is None:
            check_matrix_sizes({"the input": size}, "Give the net smaller inputs.")
            with torch.inference_mode(False):  # training could not use it otherwise
                self.matrix = draw_feedback(
                    size,
                    fan_in=size[0],
                    fan_out=size[1],
                    distribution=self.distribution,
                    scale=self.scale * (1.0 if self.distribution == "kaiming" else 2**0.5),
                    seed=derive_seed(self.seed, "input"),
                    device=x.device,
                )
        if self.matrix.shape != size:
            raise ValueError(
                f"the matrix F is {tuple(self.matrix.shape)}, but input and error need {size}. "
                "Keep the shapes of the data and of the net's output."
            )
        if self.matrix.device != errors.device:
            self.matrix = self.matrix.to(errors.device)
        return (errors @ self.matrix.to(errors.dtype).T).reshape(x.shape).to(x.dtype)
