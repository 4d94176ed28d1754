"""Arrays in a file."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_credit.datamodules.held_out import held_out
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.utils.paths import local_path
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["ArrayFile"]


class ArrayFile(TensorDataModule):
    """Arrays of a file as batches ``(x, y, ...)``; the first dimension is the samples.

    ``numpy.savez("data.npz", x=x, y=y)`` and ``torch.save({"x": x, "y": y}, "data.pt")`` write such
    files. Real numbers become float32, whole numbers int64, bytes stay bytes (uint8).

    Args:
        file: an ``.npz`` file, or a ``.pt`` file that holds a dict of tensors.
        names: names of the arrays in the file, in the order in which they stand in a batch.
        val_file: a file with the same names for validation; None holds out ``val_fraction``.
        val_fraction: share of the samples that is held out, the same samples in every run.
        test_file: a file with the same names for testing; None tests on the validation data.

    Raises:
        ValueError: if a file cannot be read or has no array of a name, or if the arrays differ in
            length.
    """

    earlier_arguments: ClassVar[Mapping[str, Any]] = {"test_file": None}

    def __init__(
        self,
        file: str,
        names: list[str],
        val_file: str | None = None,
        val_fraction: float = 0.2,
        batch_size: int = 128,
        val_batch_size: int = 1000,
        seed: int | None = None,
        test_file: str | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_range(above=0, below=1, val_fraction=val_fraction)
        self.file = local_path(file, "file")
        self.val_file = None if val_file is None else local_path(val_file, "val_file")
        self.test_file = None if test_file is None else local_path(test_file, "test_file")
        self.names = names
        self.val_fraction = val_fraction

    @property
    def has_test_data(self) -> bool:
        """Whether there is a file for testing."""
        return self.test_file is not None

    def setup(self, stage: str | None = None) -> None:
        """Read the files at the first call.

        Args:
            stage: stage of Lightning; every stage needs the same data.
        """
        _ = self.splits

    @cached_property
    def splits(self) -> tuple[Batch, Batch, Batch]:
        """The arrays for training, validation and testing."""
        train = self._read("file", self.file)
        if self.val_file is not None:
            val = self._read("val_file", self.val_file)
        else:
            parts = held_out(len(train[0]), val_fraction=self.val_fraction)
            train, val = (tuple(array[part] for array in train) for part in parts)
        return train, val, self._read("test_file", self.test_file) if self.test_file else val

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches."""
        return self.loader(self.splits[0], self.batch_size, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """Batches in the order of the file."""
        return self.loader(self.splits[1], self.val_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Batches of ``test_file``, in its order; without it those of the validation."""
        return self.loader(self.splits[2], self.val_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """The batches of the test."""
        return self.test_dataloader()

    def _read(self, argument: str, file: str) -> Batch:
        try:
            held: Any = (
                torch.load(file, weights_only=True)
                if Path(file).suffix in (".pt", ".pth")
                else dict(np.load(file, allow_pickle=False))
            )
            if not isinstance(held, Mapping):
                raise TypeError(f"it holds {type(held).__name__}, not a dict")
        except Exception as error:  # each format has errors of its own
            raise ValueError(
                f"`{argument}` is {file!r}, which cannot be read: {error}. Expected an .npz file "
                "(numpy.savez), or a .pt file with a dict of tensors (torch.save)."
            ) from error
        missing = [name for name in self.names if name not in held]
        if missing or not self.names:
            raise ValueError(
                f"`names` is {self.names}, but {file!r} holds {choice(list(map(str, held)))}. Name "
                "the arrays of a batch in their order, such as [x, y]."
            )
        arrays = tuple(_as_tensor(held[name]) for name in self.names)
        lengths = [len(array) if array.dim() else 0 for array in arrays]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(
                f"`{argument}` is {file!r}, whose arrays {', '.join(self.names)} have {lengths} "
                "samples. Expected one length for all, above 0."
            )
        return arrays


def _as_tensor(array: Any) -> Tensor:
    tensor = torch.as_tensor(array)
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype in (torch.uint8, torch.bool) else tensor.long()
