"""Parts of somebody else's package, each with a fault of its own."""

import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.rules import BP
from lit_credit.tasks import Classification


class Net(nn.Module):
    """Raises, or returns what is not a tensor."""

    def __init__(self, fault: str = "", layers: int = 0):
        super().__init__()
        self.fault, self.calls = fault, 0
        if fault == "key":
            {}["width"]
        if fault == "division":
            1 / 0  # noqa: B018
        if fault == "attribute":
            self.nothing  # noqa: B018
        if fault == "import":
            import no_such_package  # noqa: F401
        if fault == "no text":
            raise NotImplementedError
        self.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(layers))
        self.head = nn.Linear(64, 10)

    def forward(self, x, *rest):
        self.calls += self.training
        logits = self.head(x.flatten(1))
        if self.fault == "late" and self.calls > 2:
            raise ValueError("a slip in the third step")
        if self.fault == "forward":
            return {}["x"]
        returned = {"tuple": (logits, x), "dict": {"logits": logits}, "none": None}
        return returned.get(self.fault, logits)


class TwoInputs(Net):
    """Takes more than the task hands it."""

    def forward(self, x, mask):
        return super().forward(x * mask)


class Data(LightningDataModule):
    """64 samples like Digits'."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault
        if fault == "file":
            open("/nowhere/data.bin")  # noqa: SIM115

    def prepare_data(self):
        if self.fault == "prepare":
            raise RuntimeError("the store is closed")

    def setup(self, stage):
        if self.fault == "setup":
            {}["train"]

    def train_dataloader(self):
        if self.fault == "loader":
            raise AttributeError("no data yet")
        x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(64) % 10
        if self.fault == "dict":
            return DataLoader([{"x": a, "y": b} for a, b in zip(x, y, strict=True)], 16)
        if self.fault == "ragged":
            return DataLoader([torch.zeros(i + 1) for i in range(64)], 16)
        if self.fault == "text":
            return DataLoader([(a, str(int(b))) for a, b in zip(x, y, strict=True)], 16)
        if self.fault == "inputs alone":
            return DataLoader(TensorDataset(x), 16)
        if self.fault == "one tensor":
            return DataLoader(x, 16)
        return DataLoader(TensorDataset(x, y.float() if self.fault == "float" else y), 16)

    val_dataloader = train_dataloader


class Faulty(Callback):
    """Raises in one hook."""

    def __init__(self, hook: str = "setup"):
        if hook == "__init__":
            {}["x"]
        else:
            setattr(self, hook, self._fail)

    def _fail(self, trainer, *args, **kwargs):
        [][3]


class FaultyLogger(CSVLogger):
    """Raises where the run's hyperparameters are written."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir)

    def log_hyperparams(self, *args, **kwargs):
        {}["x"]


class Task(Classification):
    """A loss that is not one."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault

    def metrics(self):
        if self.fault == "metrics":
            {}["accuracy"]
        return super().metrics()

    def loss(self, output, batch):
        losses = {"each": output.sum(1), "none": None, "key": batch}
        if self.fault == "key":
            return batch["x"]
        return losses.get(self.fault, super().loss(output, batch))


class OneArgument(Classification):
    """A loss of the wrong signature."""

    def loss(self, output):
        return output.sum()


class Logging(BP):
    """Logs a metric of its own."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.log("train/own", 1.0)


class Silent(BP):
    """Derived, without logging anything."""


def make_net() -> nn.Module:
    """A function in place of a class."""
    return {}["x"]
