"""What all datamodules of labelled images share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator

from lit_credit.datamodules.augment import normalize, random_crop_flip
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader, Transform
from lit_credit.utils.random_state import run_seed

__all__ = ["ImageDataModule"]


class ImageDataModule(LightningDataModule, ABC):
    """Labelled images as one uint8 tensor per split, handed out in whole batches.

    A batch is (x, y): x float32 ``(N, C, H, W)``, normalised; y int64 ``(N,)``. The validation
    split IS the test split: the study reports curves on the test set, and nothing is selected by
    them. Do not tune on it.

    Every training batch is a function of (seed, epoch, batch index), see :class:`TensorLoader`.

    Args:
        batch_size: samples in a training batch, over all devices together.
        val_batch_size: samples in a validation or test batch, over all devices together.
        seed: seed of order, augmentation and random targets; None takes the one given to
            ``seed_everything``, or 0 if there was none. A resumed run keeps the one it had.
        random_targets: replace the labels of each training batch by fresh, independent, uniform
            classes: a task in which nothing can be learned.
        augment: mirror and shift (by up to 4 pixels) the training images at random.
    """

    num_classes: ClassVar[int]
    shape: ClassVar[tuple[int, int, int]]
    """(channels, height, width) of an image."""
    mean: Sequence[float]
    """Of each channel, in units of the pixels."""
    std: Sequence[float]

    def __init__(
        self,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        random_targets: bool = False,
        augment: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.seed = seed
        self.random_targets = random_targets
        self.augment = augment
        self._resumed_seed: int | None = None

    @abstractmethod
    def read(self, train: bool) -> Batch:
        """Read a split from disk.

        Args:
            train: the training split, or else the test split.

        Returns:
            Images, uint8 ``(n, *shape)``, and labels, int64 ``(n,)``.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read both splits, the first time it is called.

        Args:
            stage: Lightning's; every stage needs the same.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> tuple[Batch, Batch]:
        """(images, labels) to train on and to test on, as read; the images uint8."""
        return self.read(train=True), self.read(train=False)

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of the training split."""
        return self._loader(0, self.batch_size, self._train_transform, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self._loader(1, self.val_batch_size, self._eval_transform)

    def test_dataloader(self) -> TensorLoader:
        """Batches of the test split, in order."""
        return self.val_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """The seed in use, so that a resumed run without one of its own keeps the order."""
        return {"seed": self._seed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the seed of the run that is resumed, unless one was given as argument.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self._resumed_seed = state_dict["seed"]

    def __str__(self) -> str:
        # Lightning's own asks every loader for a torch Dataset, and fails without one.
        arguments = f"batch_size={self.batch_size}, seed={self._seed()}"
        return f"{type(self).__name__}({arguments}, random_targets={self.random_targets})"

    def _seed(self) -> int:
        if self.seed is not None:
            return self.seed
        if self._resumed_seed is not None:
            return self._resumed_seed
        return run_seed()

    def _loader(
        self, split: int, batch_size: int, transform: Transform, shuffle: bool = False
    ) -> TensorLoader:
        return TensorLoader(
            self.splits[split],
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self._seed(),
            transform=transform,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    def _train_transform(self, batch: Batch, generator: Generator) -> Batch:
        images, labels = batch
        if self.augment:
            images = random_crop_flip(images, generator)
        if self.random_targets:
            labels = torch.randint(self.num_classes, labels.shape, generator=generator)
        return normalize(images, self.mean, self.std), labels

    def _eval_transform(self, batch: Batch, generator: Generator) -> Batch:
        images, labels = batch
        return normalize(images, self.mean, self.std), labels
