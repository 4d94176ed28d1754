"""Small data."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lit_credit.datamodules import TensorLoader
from lit_credit.inspect.contexts import Contexts
from tests.support.nets import CLASSES, FEATURES


def tensors(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def train_loader():
    """Four batches an epoch, resumable."""
    return TensorLoader(tensors(32), batch_size=8, seed=0)


def val_loader():
    return TensorLoader(tensors(20, seed=1), batch_size=6, shuffle=False)


class Rows(torch.utils.data.Dataset):
    """A dataset that keeps the order in which its rows were asked for by the training."""

    def __init__(self, n, kind):
        self.x, self.y = tensors(n)
        self.kind = kind

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        row = {"x": self.x[i], "y": self.y[i], "id": f"row {i}"}
        return row if self.kind == "dict" else (row["x"], row["y"])


def shuffled(kind="tuple", n=32):
    generator = torch.Generator().manual_seed(5)
    return DataLoader(Rows(n, kind), batch_size=8, shuffle=True, generator=generator)


class Data(LightningDataModule):
    """A given loader, and all pairs of a few symbols with what follows them."""

    def __init__(self, train=None):
        super().__init__()
        self.train = train

    def train_dataloader(self):
        return self.train

    def contexts(self):
        generator = torch.Generator().manual_seed(2)
        x = torch.cartesian_prod(torch.arange(3), torch.arange(4))
        prior = torch.rand(len(x), generator=generator)
        rows = torch.randn(len(x), CLASSES, generator=generator).softmax(-1)
        return x, prior / prior.sum(), rows


class ValidatedData(Data):
    def __init__(self, train, val):
        super().__init__(train)
        self.val = val

    def val_dataloader(self):
        return self.val


def images(
    n: int = 96, features: int = 20, classes: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator)
    return x, torch.randint(classes, (n,), generator=generator)


def loader(n: int = 96, features: int = 20, classes: int = 5, batch_size: int = 16) -> TensorLoader:
    return TensorLoader(images(n, features, classes), batch_size=batch_size, seed=0)


class ChangedData(Data):
    """The contexts of :class:`Data`, changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def contexts(self):
        return self.change(Contexts(*super().contexts()))
