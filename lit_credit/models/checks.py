"""Checking that data fit a net; errors name both sizes."""

from torch import Tensor

__all__ = ["flat_features"]


def flat_features(x: Tensor, in_features: int) -> Tensor:
    """Flatten each sample of ``x`` (N, ...) to (N, in_features).

    Raises:
        ValueError: if a sample does not have ``in_features`` numbers.
    """
    flat = x.flatten(1)
    if flat.shape[1] != in_features:
        raise ValueError(
            f"`in_features` is {in_features}, but a sample of the data has {flat.shape[1]} numbers "
            f"(batch {tuple(x.shape)}). Set the net's `in_features` to {flat.shape[1]}."
        )
    return flat
