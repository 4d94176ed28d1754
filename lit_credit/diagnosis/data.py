"""What a person gives as data: a batch, a loader, a datamodule, or nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from lit_credit.utils.both_packages import is_a

__all__ = ["Data", "as_data"]


class Data(NamedTuple):
    """The data of a diagnosis; both are None if there are none beside the module's own.

    Attributes:
        loader: an iterable of batches.
        datamodule: a datamodule.
    """

    loader: Any = None
    datamodule: Any = None


class Batches:
    """A loader of given batches; Lightning takes a list for several loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches

    def __len__(self) -> int:
        return len(self.batches)


def as_data(given: Any) -> Data:
    """Tell what is given as ``data``.

    A tensor, a mapping, a tuple, and a list with a tensor in it are one batch. A list of other
    things is a list of batches. Any other iterable is a loader, any other object one batch.

    Args:
        given: the data; None for none.

    Raises:
        TypeError: if it is text, or an iterator, whose batches could be read only once.
        ValueError: if it is a dataset, which does not say how large a batch is, or an empty list.
    """
    if given is None:
        return Data()
    if is_a(given, LightningDataModule):
        return Data(datamodule=given)
    kind = type(given).__name__
    if isinstance(given, Dataset):
        raise ValueError(
            f"`data` is {kind}, a dataset, which makes no batches. Give "
            f"`DataLoader(data, batch_size=...)`."
        )
    if isinstance(given, str | bytes | Iterator):
        raise TypeError(
            f"`data` is {kind}, expected a batch, a loader that can be read again, or a "
            "LightningDataModule. Of an iterator give one batch, `next(iterator)`."
        )
    if isinstance(given, list) and not any(isinstance(item, Tensor) for item in given):
        if not given:
            raise ValueError("`data` is an empty list, expected at least one batch.")
        return Data(loader=Batches(given))
    is_batch = isinstance(given, Tensor | Mapping | tuple | list) or not isinstance(given, Iterable)
    return Data(loader=Batches([given]) if is_batch else given)
