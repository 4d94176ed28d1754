"""Datamodules that keep their data in memory and return whole batches."""

from typing import TYPE_CHECKING

from lit_credit.datamodules.array_file import ArrayFile
from lit_credit.datamodules.augment import normalize, random_crop_flip
from lit_credit.datamodules.char_text import CharText
from lit_credit.datamodules.cifar10 import CIFAR10
from lit_credit.datamodules.digits import Digits
from lit_credit.datamodules.image import ImageDataModule
from lit_credit.datamodules.image_folder import ImageFolder
from lit_credit.datamodules.mnist import MNIST, FashionMNIST
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import TensorLoader
from lit_credit.datamodules.tiny_shakespeare import TinyShakespeare
from lit_credit.datamodules.torchvision_images import TorchvisionImages
from lit_credit.former_names import former_names

__all__ = [
    "CIFAR10",
    "MNIST",
    "ArrayFile",
    "CharText",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "TensorDataModule",
    "TensorLoader",
    "TinyShakespeare",
    "TorchvisionImages",
    "normalize",
    "random_crop_flip",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
