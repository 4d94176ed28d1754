"""Images in one folder per class."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_credit.datamodules.image import ImageDataModule, Pixels, Splits
from lit_credit.datamodules.tensor_loader import Batch
from lit_credit.utils.paths import local_path
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["ImageFolder"]

_TRAIN, _VAL, _TEST = "train", ("val", "valid", "validation"), "test"


class ImageFolder(ImageDataModule):
    """Images from a folder with one folder per class, in the layout of ``torchvision.datasets``.

    Either ``root/CLASS/*.png``, or ``root/train/CLASS/*.png`` beside ``root/val/CLASS/*.png`` (or
    ``valid``, ``validation``), ``root/test/CLASS/*.png`` or both. Without a folder for validation,
    ``val_split`` of the training images is held out, the same images in every run. Without a folder
    ``test``, a test sees the validation images. Classes are numbered in the order of their names.

    All images are held in memory, n C H W bytes. They are read anew in every run. Mean
    and standard deviation of each channel, for ``normalize``, are those of the training images.

    Args:
        root: the folder.
        size: height and width to which every image is resized; None keeps the images as they are,
            which must then all have the same size.
        mode: ``RGB`` (3 channels) or ``L`` (grey, 1 channel).
        val_split: share of each class of the training images for validation, if ``root`` has no
            folder for it. 0 validates on ``root/test``.
        val_fraction: former name of ``val_split``, for a ``root`` without a folder ``train``.

    Raises:
        ValueError: if the folder holds no such images, the splits have different classes, the
            images differ in size, or a file cannot be read.
    """

    shape: tuple[int, ...] = ()

    def __init__(
        self,
        root: str,
        size: int | None = None,
        mode: Literal["RGB", "L"] = "RGB",
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
        val_fraction: float | None = None,
    ) -> None:
        super().__init__(
            batch_size,
            val_batch_size,
            seed,
            random_targets,
            augment,
            normalize=normalize,
            max_shift=max_shift,
            mirror=mirror,
            val_split=val_split,
            split_seed=split_seed,
        )
        check_range(1, 10**5, size=size)
        check_range(above=0, below=1, val_fraction=val_fraction)
        check_choice(("RGB", "L"), mode=mode)
        self.root = local_path(root, "root")
        self.size = size
        self.mode = mode
        self.val_fraction = val_fraction
        if val_fraction is not None:
            warnings.warn(
                "`val_fraction` of ImageFolder is `val_split` now. The former name will go with "
                "the next release.",
                DeprecationWarning,
                stacklevel=2,
            )

    @property
    def has_test_data(self) -> bool:
        """Whether there is a folder ``test``, and other images for validation."""
        return self._folder(_TEST) is not None and not self.validates_on_test_data

    @property
    def validates_on_test_data(self) -> bool:
        """Whether the validation data are the images of the folder ``test``."""
        has_test, has_val = (self._folder(*names) is not None for names in ([_TEST], _VAL))
        return has_test and not has_val and self.val_split == 0

    def read(self, train: bool) -> Batch:
        """Read a split.

        Args:
            train: the training split, or else the test split.

        Returns:
            Images, uint8 ``(n, C, H, W)``, and labels, int64 ``(n,)``.
        """
        return self.splits.train if train else self.splits.test

    @cached_property
    def splits(self) -> Splits:
        """All images and labels, as read."""
        root = self._folder(_TRAIN) or Path(self.root)
        images, labels, names = self._all(root)
        train: Batch = (images, labels)
        val, test = (self._beside(names, images, *folders) for folders in (_VAL, [_TEST]))
        share = self.val_split
        if self.val_fraction is not None and root == Path(self.root):
            share = self.val_fraction
        if val is None and share > 0:
            train, val = self._split_off(train, share)
        val = val or test
        if val is None:
            raise ValueError(
                f"`val_split` is 0, but `root`, {self.root!r}, has no folder with images for "
                f"validation: {_TRAIN!r} and one of {', '.join(map(repr, [*_VAL, _TEST]))}. Set "
                "`val_split`, such as 0.1, or add them."
            )
        self.num_classes = len(names)
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        pixels = train[0].double()
        self.mean = pixels.mean((0, 2, 3)).tolist()
        std = pixels.std((0, 2, 3), correction=0)
        self.std = torch.where(std > 0, std, 1.0).tolist()
        return Splits(train, val, test or val)

    def _folder(self, *names: str) -> Path | None:
        """The first of some folders of ``root``, if there is a folder ``train``."""
        if not Path(self.root, _TRAIN).is_dir():
            return None
        return next((path for name in names if (path := Path(self.root, name)).is_dir()), None)

    def _beside(self, names: list[str], like: Tensor, *folders: str) -> Batch | None:
        """Images and labels of the first of some folders, with the classes of the training data."""
        if (folder := self._folder(*folders)) is None:
            return None
        images, labels, found = self._all(folder)
        if found != names:
            raise ValueError(
                f"`root`: {Path(self.root, _TRAIN)} has the classes {names}, {folder} has {found}. "
                "Give both the same folders."
            )
        if images.shape[1:] != like.shape[1:]:
            raise ValueError(_sizes(self.root, like.shape[-2:], images.shape[-2:]))
        return images, labels

    def _all(self, root: Path) -> tuple[Tensor, Tensor, list[str]]:
        """Images, labels and the names of the classes below a folder."""
        # torchvision is slow to load.
        from torchvision.datasets import folder

        try:
            names, numbers = folder.find_classes(str(root))
            found = folder.make_dataset(str(root), numbers, folder.IMG_EXTENSIONS)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`root` is {self.root!r}, but {root} is not a folder with one folder of images "
                f"per class: {error}"
            ) from error
        images = []
        for path, _ in found:
            try:
                image = folder.pil_loader(path).convert(self.mode)
            except (OSError, SyntaxError) as error:
                raise ValueError(
                    f"`root`: {path} cannot be read: {error}. Remove or replace it."
                ) from error
            if self.size is not None:
                image = image.resize((self.size, self.size))
            pixels = torch.from_numpy(np.array(image))
            images.append(pixels[None] if self.mode == "L" else pixels.permute(2, 0, 1))
            if images[-1].shape != images[0].shape:
                raise ValueError(_sizes(path, images[0].shape[-2:], images[-1].shape[-2:]))
        return torch.stack(images), torch.tensor([label for _, label in found]), names


def _sizes(place: str, one: torch.Size, other: torch.Size) -> str:
    return (
        f"`size` is None, but the images differ in size: {tuple(one)} and {tuple(other)} pixels "
        f"({place}). Set `size`, such as 64, and every image is resized."
    )
