"""The base class of datamodules with labelled images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal, get_args

import torch
from torch import Generator, Tensor

from lit_credit.datamodules.augment import normalize, random_crop_flip
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["ImageDataModule", "Pixels"]

Pixels = Literal["mean_std", "unit", "none"]


class ImageDataModule(TensorDataModule, ABC):
    """Labelled images as one uint8 tensor per split, returned in whole batches.

    A batch is (x, y): x float32 ``(N, C, H, W)``, as ``normalize`` says; y int64 ``(N,)``.
    The validation split IS the test split: the study reports curves on the test set and selects
    nothing by them. Do not tune on it.

    Every training batch is a function of (seed, epoch, batch index), see :class:`TensorLoader`.

    Args:
        batch_size: samples in a training batch, over all devices together.
        val_batch_size: samples in a validation or test batch, over all devices together.
        seed: seed of order, augmentation and random targets; None takes the one given to
            ``seed_everything``, or 0 if there was none. A resumed run keeps the one it had.
        random_targets: replace the labels of each training batch by fresh, independent, uniform
            classes: a task in which nothing can be learned.
        augment: shift the training images at random, and mirror them.
        normalize: pixels that the net gets: ``mean_std`` centres and scales each channel by
            ``mean`` and ``std``, ``unit`` scales to [0, 1], ``none`` leaves them as they are
            (0 to 255 for photographs).
        max_shift: pixels by which ``augment`` shifts at most, up and down and to the sides.
        mirror: whether ``augment`` mirrors each image with probability 1/2; False for digits.
    """

    num_classes: int
    shape: tuple[int, ...]
    """(channels, height, width) of an image; empty if only the files tell."""
    mean: Sequence[float]
    """Mean of each channel, in the units of the pixels."""
    std: Sequence[float]
    max_pixel: ClassVar[float] = 255
    """The value of a white pixel."""

    def __init__(
        self,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        random_targets: bool = False,
        augment: bool = False,
        normalize: Pixels = "mean_std",
        max_shift: int = 4,
        mirror: bool = True,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_choice(get_args(Pixels), normalize=normalize)
        check_range(0, min(self.shape[1:], default=10**5) - 1, max_shift=max_shift)
        if not augment and (max_shift != 4 or not mirror):
            raise ValueError(
                f"`max_shift` is {max_shift} and `mirror` {mirror}, but `augment` is False, so "
                "that no image is shifted or mirrored. Set `augment` to true."
            )
        self.random_targets = random_targets
        self.augment = augment
        self.normalize: Pixels = normalize
        self.max_shift = max_shift
        self.mirror = mirror

    @abstractmethod
    def read(self, train: bool) -> Batch:
        """Read a split from disk.

        Args:
            train: the training split, or else the test split.

        Returns:
            Images, uint8 ``(n, *shape)``, and labels, int64 ``(n,)``.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read both splits at the first call.

        Args:
            stage: stage of Lightning; every stage needs the same data.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> tuple[Batch, Batch]:
        """(images, labels) for training and for testing, as read; the images are uint8."""
        return self.read(train=True), self.read(train=False)

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the training split."""
        return self.loader(self.splits[0], self.batch_size, self._train_transform, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.loader(self.splits[1], self.val_batch_size, self._eval_transform)

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.val_dataloader()

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.val_dataloader()

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]}, random_targets={self.random_targets})"

    def _train_transform(self, batch: Batch, generator: Generator) -> Batch:
        images, labels = batch
        if self.augment:
            images = random_crop_flip(images, generator, self.max_shift, self.mirror)
        if self.random_targets:
            labels = torch.randint(self.num_classes, labels.shape, generator=generator)
        return self._pixels(images), labels

    def _eval_transform(self, batch: Batch, generator: Generator) -> Batch:
        images, labels = batch
        return self._pixels(images), labels

    def _pixels(self, images: Tensor) -> Tensor:
        if self.normalize == "mean_std":
            return normalize(images, self.mean, self.std)
        most = self.max_pixel if self.normalize == "unit" else 1.0
        return normalize(images, [0.0], [most])
