"""The handwritten digits that scikit-learn ships."""

import torch

from lit_credit.datamodules.image import ImageDataModule, Pixels
from lit_credit.datamodules.tensor_loader import Batch

__all__ = ["Digits"]

_TEST_SAMPLES = 360


class Digits(ImageDataModule):
    """scikit-learn's 8 x 8 digits, 1437 for training and 360 for testing; no download needed.

    This split is stratified by class and always the same. By default images are standardised by the
    mean and the standard deviation of all pixels of the 1437 images.

    Args:
        batch_size: samples in a training batch, over all devices together.
        val_batch_size: samples in a validation or test batch, over all devices together.
        seed: seed of order and random targets; None takes the one given to ``seed_everything``,
            or 0 if there was none. A resumed run keeps the one it had.
        random_targets: replace the labels of each training batch by fresh, independent, uniform
            classes.
        normalize: pixels that the net gets: ``mean_std`` standardises them, ``unit`` scales to
            [0, 1], ``none`` leaves them as they are (0 to 16).
        val_split: share of each class of the training data for validation, from 0 to below 1.
            0 validates on the test data.
        split_seed: seed of the choice of these images.

    Example:
        >>> x, y = next(iter(Digits(batch_size=32).train_dataloader()))
        >>> x.shape, x.dtype, y.shape, y.dtype
        (torch.Size([32, 1, 8, 8]), torch.float32, torch.Size([32]), torch.int64)

    Reference:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository (1998), doi:10.24432/C50P49.
    """

    num_classes = 10
    shape = (1, 8, 8)
    max_pixel = 16

    def __init__(
        self,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        random_targets: bool = False,
        normalize: Pixels = "mean_std",
        val_split: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size,
            val_batch_size,
            seed,
            random_targets,
            normalize=normalize,
            val_split=val_split,
            split_seed=split_seed,
        )

    def read(self, train: bool) -> Batch:
        """Read the training or test data out of scikit-learn.

        Args:
            train: the training data, or else the test data.

        Returns:
            Images, uint8 (0 to 16) ``(n, 1, 8, 8)``, and labels, int64 ``(n,)``.
        """
        # scikit-learn is slow to load and needed only here.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        data = load_digits()
        parts = train_test_split(
            data.images, data.target, test_size=_TEST_SAMPLES, stratify=data.target, random_state=0
        )
        pixels = parts[0]
        self.mean, self.std = [float(pixels.mean())], [float(pixels.std())]
        images, labels = parts[0::2] if train else parts[1::2]
        return torch.from_numpy(images).to(torch.uint8).unsqueeze(1), torch.from_numpy(labels)
