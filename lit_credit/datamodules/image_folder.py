"""Images in one folder per class."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_credit.datamodules.held_out import held_out
from lit_credit.datamodules.image import ImageDataModule, Pixels
from lit_credit.datamodules.tensor_loader import Batch
from lit_credit.utils.paths import local_path
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["ImageFolder"]

_TRAIN, _VAL = "train", ("val", "valid", "validation", "test")


class ImageFolder(ImageDataModule):
    """Images from a folder with one folder per class, in the layout of ``torchvision.datasets``.

    Either ``root/train/CLASS/*.png`` and ``root/val/CLASS/*.png`` (or ``valid``, ``validation``,
    ``test``), or ``root/CLASS/*.png``, of which ``val_fraction`` is held out, the same images in
    every run. Classes are numbered in the order of their names.

    All images are held in memory, n C H W bytes. They are read anew in every run. Mean
    and standard deviation of each channel, for ``normalize``, are those of the training images.

    Args:
        root: the folder.
        size: height and width to which every image is resized; None keeps the images as they are,
            which must then all have the same size.
        mode: ``RGB`` (3 channels) or ``L`` (grey, 1 channel).
        val_fraction: share of each class to hold out, if ``root`` has no folder ``train``.

    Raises:
        ValueError: if the folder holds no such images, the two splits have different classes, the
            images differ in size, or a file cannot be read.
    """

    shape: tuple[int, ...] = ()

    def __init__(
        self,
        root: str,
        size: int | None = None,
        mode: Literal["RGB", "L"] = "RGB",
        val_fraction: float = 0.2,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        random_targets: bool = False,
        augment: bool = False,
        normalize: Pixels = "mean_std",
        max_shift: int = 4,
        mirror: bool = True,
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
        )
        check_range(1, 10**5, size=size)
        check_range(above=0, below=1, val_fraction=val_fraction)
        check_choice(("RGB", "L"), mode=mode)
        self.root = local_path(root, "root")
        self.size = size
        self.mode = mode
        self.val_fraction = val_fraction

    def read(self, train: bool) -> Batch:
        """Read a split.

        Args:
            train: the training split, or else the validation split.

        Returns:
            Images, uint8 ``(n, C, H, W)``, and labels, int64 ``(n,)``.
        """
        return self._both[0 if train else 1]

    @cached_property
    def _both(self) -> tuple[Batch, Batch]:
        train_root = Path(self.root, _TRAIN)
        if train_root.is_dir():
            val_root = next((p for n in _VAL if (p := Path(self.root, n)).is_dir()), None)
            if val_root is None:
                raise ValueError(
                    f"`root` is {self.root!r}, which has a folder {_TRAIN!r} and none of "
                    f"{', '.join(map(repr, _VAL))} beside it. Add one with the images for "
                    "validation, or put the folders of the classes into `root` itself."
                )
            parts = [self._all(train_root), self._all(val_root)]
            names = [part[2] for part in parts]
            if names[0] != names[1]:
                raise ValueError(
                    f"`root`: {train_root} has the classes {names[0]}, {val_root} has {names[1]}. "
                    "Give both the same folders."
                )
            train, val = (part[:2] for part in parts)
        else:
            images, labels, names_of_all = self._all(Path(self.root))
            names = [names_of_all]
            rows = held_out(len(labels), self.val_fraction, labels)
            train, val = ((images[part], labels[part]) for part in rows)
        if train[0].shape[1:] != val[0].shape[1:]:
            raise ValueError(_sizes(self.root, train[0].shape[-2:], val[0].shape[-2:]))
        self.num_classes = len(names[0])
        self.shape = (train[0].shape[1], train[0].shape[2], train[0].shape[3])
        pixels = train[0].double()
        self.mean = pixels.mean((0, 2, 3)).tolist()
        std = pixels.std((0, 2, 3), correction=0)
        self.std = torch.where(std > 0, std, 1.0).tolist()
        return train, val

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
