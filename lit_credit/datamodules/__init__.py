"""Data in memory, handed out in whole batches."""

from lit_credit.datamodules.addition import Addition
from lit_credit.datamodules.augment import normalize, random_crop_flip
from lit_credit.datamodules.char_text import CharText
from lit_credit.datamodules.cifar10 import CIFAR10
from lit_credit.datamodules.copying import Copying
from lit_credit.datamodules.digits import Digits
from lit_credit.datamodules.image import ImageDataModule
from lit_credit.datamodules.mnist import MNIST, FashionMNIST
from lit_credit.datamodules.ngram import NGram
from lit_credit.datamodules.ngram_distributions import (
    AlmostRankD,
    LastPosition,
    NGramDistribution,
    PowerUnif,
    RankD,
)
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import TensorLoader
from lit_credit.datamodules.tiny_shakespeare import TinyShakespeare
from lit_credit.datamodules.torchvision_images import TorchvisionImages

__all__ = [
    "CIFAR10",
    "MNIST",
    "Addition",
    "AlmostRankD",
    "CharText",
    "Copying",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "LastPosition",
    "NGram",
    "NGramDistribution",
    "PowerUnif",
    "RankD",
    "TensorDataModule",
    "TensorLoader",
    "TinyShakespeare",
    "TorchvisionImages",
    "normalize",
    "random_crop_flip",
]
