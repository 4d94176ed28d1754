"""CIFAR-10."""

from collections.abc import Sequence
from pathlib import Path

import torch

from lit_credit.datamodules.image import Pixels
from lit_credit.datamodules.tensor_loader import Batch
from lit_credit.datamodules.torchvision_images import Files, TorchvisionClass, TorchvisionImages

__all__ = ["CIFAR10"]


class CIFAR10(TorchvisionImages):
    """50000 colour photographs of 32 x 32 pixels in 10 classes for training, 10000 for testing.

    Read from ``<root>/cifar-10-batches-py``; downloaded if it is not there (170 MB).

    Args:
        root: folder of all data sets.
        download: download what is missing.
        batch_size: samples in a training batch, over all devices together.
        val_batch_size: samples in a validation or test batch, over all devices together.
        seed: seed of order, augmentation and random targets; None takes the one given to
            ``seed_everything``, or 0 if there was none. A resumed run keeps the one it had.
        random_targets: replace the labels of each training batch by fresh, independent, uniform
            classes.
        augment: shift the training images at random, and mirror them.
        normalize: pixels that the net gets: ``mean_std`` centres and scales each channel by
            ``mean`` and ``std``, ``unit`` scales to [0, 1], ``none`` leaves them as they are
            (0 to 255 for photographs).
        max_shift: pixels by which ``augment`` shifts at most, up and down and to the sides.
        mirror: whether ``augment`` mirrors each image with probability 1/2; False for digits.
        val_split: share of each class of the training data for validation, from 0 to below 1.
            0 validates on the test data.
        split_seed: seed of the choice of these images.

    Reference:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), ch. 3.
    """

    num_classes = 10
    shape = (3, 32, 32)
    mean = tuple(255 * value for value in (0.4914, 0.4822, 0.4465))
    std = tuple(255 * value for value in (0.2470, 0.2435, 0.2616))
    dataset = TorchvisionClass("CIFAR10")

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        random_targets: bool = False,
        augment: bool = True,
        normalize: Pixels = "mean_std",
        max_shift: int = 4,
        mirror: bool = True,
        val_split: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            root=root,
            download=download,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            seed=seed,
            random_targets=random_targets,
            augment=augment,
            normalize=normalize,
            max_shift=max_shift,
            mirror=mirror,
            val_split=val_split,
            split_seed=split_seed,
        )

    def files(self) -> Files:
        """Five training batches, the test batch and the class names."""
        listed = [*self.dataset.train_list, *self.dataset.test_list]
        listed.append((self.dataset.meta["filename"], self.dataset.meta["md5"]))
        return {Path(self.root, self.dataset.base_folder, name): md5 for name, md5 in listed}

    def archives(self) -> Files:
        """The archive of all files."""
        return {Path(self.root, self.dataset.filename): self.dataset.tgz_md5}

    def urls(self) -> Sequence[str]:
        """The author's page."""
        return [self.dataset.url]

    def read(self, train: bool) -> Batch:
        """Read the official training or test data.

        Args:
            train: the training data, or else the test data.

        Returns:
            Images, uint8 ``(n, 3, 32, 32)``, and labels, int64 ``(n,)``.
        """
        data = self.open(train)
        # torchvision moves the channels of the file to the end for PIL; this moves them back.
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(data.targets)
