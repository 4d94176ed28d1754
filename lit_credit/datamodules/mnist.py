"""MNIST and Fashion-MNIST."""

from collections.abc import Sequence
from pathlib import Path

from lit_credit.datamodules.tensor_loader import Batch
from lit_credit.datamodules.torchvision_images import Files, TorchvisionClass, TorchvisionImages

__all__ = ["MNIST", "FashionMNIST"]


class MNIST(TorchvisionImages):
    """60000 handwritten digits of 28 x 28 pixels for training, 10000 for testing.

    Read from ``<root>/MNIST/raw``; downloaded if it is not there (12 MB).

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
            (0 to 255).
        max_shift: pixels by which ``augment`` shifts at most, up and down and to the sides.
        mirror: whether ``augment`` mirrors each image with probability 1/2; False for digits.
        val_split: share of each class of the training data for validation, from 0 to below 1.
            0 validates on the test data.
        split_seed: seed of the choice of these images.

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
        Recognition", Proceedings of the IEEE 86 (1998), doi:10.1109/5.726791, sec. III.A.
    """

    num_classes = 10
    shape = (1, 28, 28)
    mean = (255 * 0.1307,)
    std = (255 * 0.3081,)
    dataset = TorchvisionClass("MNIST")

    def files(self) -> Files:
        """Unpacked images and labels of both splits; torchvision has no md5 for these files."""
        return {path.with_suffix(""): None for path in self.archives()}

    def archives(self) -> Files:
        """Archives with the images and labels of both splits."""
        folder = Path(self.root, self.dataset.__name__, "raw")
        return {folder / name: md5 for name, md5 in self.dataset.resources}

    def urls(self) -> Sequence[str]:
        """Torchvision's mirrors."""
        mirrors: list[str] = self.dataset.mirrors
        return mirrors

    def read(self, train: bool) -> Batch:
        """Read the official training or test data.

        Args:
            train: the training data, or else the test data.

        Returns:
            Images, uint8 ``(n, 1, 28, 28)``, and labels, int64 ``(n,)``.
        """
        data = self.open(train)
        return data.data.unsqueeze(1), data.targets


class FashionMNIST(MNIST):
    """60000 pictures of clothes for training, 10000 for testing: 28 x 28, grey, 10 classes.

    Read from ``<root>/FashionMNIST/raw``; downloaded if it is not there (30 MB). The arguments are
    those of :class:`MNIST`.

    Reference:
        H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
        Machine Learning Algorithms" (2017), arXiv:1708.07747.
    """

    mean = (255 * 0.2860,)
    std = (255 * 0.3530,)
    dataset = TorchvisionClass("FashionMNIST")
