"""The base class of datamodules with labelled images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Generator, Tensor

from lit_credit.datamodules.augment import normalize, random_crop_flip
from lit_credit.datamodules.held_out import held_out
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["ImageDataModule", "Pixels", "Splits"]

Pixels = Literal["mean_std", "unit", "none"]


class Splits(NamedTuple):
    """(images, labels) for training, validation and testing; the images are uint8."""

    train: Batch
    val: Batch
    test: Batch


class ImageDataModule(TensorDataModule, ABC):
    """Labelled images as one uint8 tensor per split, returned in whole batches.

    A batch is (x, y): x float32 ``(N, C, H, W)``, as ``normalize`` says; y int64 ``(N,)``.

    ``val_split`` of each class of the training data is for validation, rounded up. The images are
    the same in every run, whatever its seed. With ``val_split: 0`` the validation data are the test
    data: curves then show the test data, and nothing may be selected by them.

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
        val_split: share of each class of the training data for validation, from 0 to below 1.
            0 validates on the test data.
        split_seed: seed of the choice of these images.
    """

    earlier_arguments: ClassVar[Mapping[str, Any]] = {"val_split": 0.0, "split_seed": 0}
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
        val_split: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_range(0, below=1, val_split=val_split)
        check_range(0, split_seed=split_seed)
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
        self.val_split = val_split
        self.split_seed = split_seed

    @property
    def has_test_data(self) -> bool:
        """Whether the test data are others than the validation data."""
        return self.val_split > 0

    @property
    def validates_on_test_data(self) -> bool:
        """Whether the validation data are the test data."""
        return self.val_split == 0

    @abstractmethod
    def read(self, train: bool) -> Batch:
        """Read the official training or test data from disk.

        Args:
            train: the training data, or else the test data.

        Returns:
            Images, uint8 ``(n, *shape)``, and labels, int64 ``(n,)``.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read all splits at the first call.

        Args:
            stage: stage of Lightning; every stage needs the same data.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> Splits:
        """All images and labels, as read."""
        train, test = self.read(train=True), self.read(train=False)
        if self.val_split == 0:
            return Splits(train, test, test)
        return Splits(*self._split_off(train, self.val_split), test)

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the training split."""
        data = self.splits.train
        return self.loader(data, self.batch_size, self._train_transform, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """Batches of the validation split, in order."""
        return self.loader(self.splits.val, self.val_batch_size, self._eval_transform)

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.loader(self.splits.test, self.val_batch_size, self._eval_transform)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.test_dataloader()

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]}, random_targets={self.random_targets})"

    def _split_off(self, data: Batch, share: float) -> tuple[Batch, Batch]:
        """Images and labels for training, and those for validation."""
        images, labels = data
        rows = held_out(len(labels), labels, self.split_seed, val_split=share)
        train, val = ((images[part], labels[part]) for part in rows)
        return train, val

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
