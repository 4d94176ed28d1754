"""The base class of data sets that torchvision reads and downloads."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lit_credit.datamodules.image import ImageDataModule, Pixels
from lit_credit.datamodules.network import any_reachable
from lit_credit.utils.paths import local_path

__all__ = ["Files", "TorchvisionClass", "TorchvisionImages"]

Files = dict[Path, str | None]
"""Paths, each with its md5, or None where any content is accepted."""


class TorchvisionClass:
    """A class attribute that stands for a class of ``torchvision.datasets``.

    Loading torchvision takes seconds. It is loaded when the attribute is read.

    Args:
        name: name of the class.

    Example:
        >>> class Images:
        ...     dataset = TorchvisionClass("MNIST")
        >>> Images.dataset
        <class 'torchvision.datasets.mnist.MNIST'>
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        # torchvision is slow to load.
        from torchvision import datasets

        return getattr(datasets, self._name)


class TorchvisionImages(ImageDataModule):
    """A data set that torchvision reads from a folder, and downloads if it is not there.

    Without the data and without a network it fails at once, or after half a minute if no host
    answers and none refuses. The error names the places of the files.

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
    """

    dataset: ClassVar[Any]
    """The class of torchvision."""

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
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
        super().__init__(
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
        self.root = local_path(root, "root")
        self.download = download

    @abstractmethod
    def files(self) -> Files:
        """The files that are read."""

    @abstractmethod
    def archives(self) -> Files:
        """The files that are downloaded, and unpacked into :meth:`files`."""

    @abstractmethod
    def urls(self) -> Sequence[str]:
        """The addresses of the archives, one per mirror."""

    def prepare_data(self) -> None:
        """Download and unpack what is missing.

        Raises:
            ValueError: if files are missing or damaged and ``download`` is False, no host
                answers, or the download fails.
        """
        bad = _bad(self.files())
        if not bad:
            return
        if not self.download:
            raise self._error("`download` is False", bad)
        # Archives that the user has put there are unpacked without a network.
        if _bad(self.archives()) and not any_reachable(self.urls()):
            raise self._error(f"no connection to {' or '.join(self.urls())}", bad)
        try:
            self.dataset(self.root, download=True)
        # torchvision raises different errors for different faults.
        except Exception as error:
            raise self._error(f"the download failed: {error!r}", _bad(self.files())) from error

    def open(self, train: bool) -> Any:
        """Open torchvision's training or test data, with the raw arrays.

        Args:
            train: the training data, or else the test data.

        Returns:
            An instance of ``dataset``.

        Raises:
            ValueError: if files are missing or damaged.
        """
        try:
            return self.dataset(self.root, train=train, download=False)
        except Exception as error:
            raise self._error(f"reading failed: {error!r}", _bad(self.files())) from error

    def _error(self, reason: str, bad: Collection[Path]) -> ValueError:
        names = "\n".join(f"  {path}{_fault(path) if path in bad else ''}" for path in self.files())
        name = type(self).__name__
        return ValueError(
            f"{name}: no usable data under `root`={self.root!r}; {reason}. Expected:\n{names}\n"
            f"Put the files there (or the archives: {', '.join(map(str, self.archives()))}), remove"
            f" damaged ones, let `root` name the folder that has them, or run once with"
            f" `download`=True where there is a network. `Digits` is the data set that needs no"
            f" files."
        )


def _bad(files: Files) -> list[Path]:
    # torchvision is slow to load.
    from torchvision.datasets.utils import check_integrity

    return [path for path, md5 in files.items() if not check_integrity(path, md5)]


def _fault(path: Path) -> str:
    return "  (damaged: its md5 is wrong)" if path.is_file() else "  (missing)"
