"""Checking that data fit a net; errors name both sizes."""

from torch import Tensor

__all__ = ["check_images", "flat_features"]


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


def check_images(x: Tensor, shape: tuple[int, int | None, int | None]) -> Tensor:
    """Return images ``x`` (N, C, H, W) if they have the shape of a net's input.

    Args:
        x: a batch.
        shape: channels, height and width; None where any number will do.

    Raises:
        ValueError: naming both shapes.
    """
    fits = x.dim() == 4 and all(
        size is None or size == found for size, found in zip(shape, x.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(
            letter if n is None else str(n) for letter, n in zip("CHW", shape, strict=True)
        )
        raise ValueError(
            f"the net takes images (N, {wanted}), but the batch is {tuple(x.shape)}. Set the net's "
            "`in_channels` and size to those of the data."
        )
    return x
