"""Text as windows of characters."""

import pydoc_data.topics
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Generator, Tensor

from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.protocols import NetProtocol, asked
from lit_credit.utils.paths import local_path
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["CharText"]

ASCII = "\n" + "".join(map(chr, range(32, 127)))
"""The 96 characters of the text that comes with Python, the same for every version of Python."""


class _Data(NamedTuple):
    vocabulary: str
    train: Tensor
    val: Tensor


class CharText(TensorDataModule):
    """Windows of a text, each with the character that follows every position.

    A batch is (x, y), both int64 (N, T) with T = ``block_size``; y is one character ahead of x.
    Training windows start anywhere in the first part of the text and are drawn with replacement.
    Validation windows follow each other in the rest of the text without overlap; they are always
    the same. There are no other windows for testing: a test sees the validation windows.

    Args:
        path: a text file in UTF-8, or a folder whose ``*.txt`` files are read in order of name.
            None takes a text that comes with Python: the documentation of the language (465,000
            characters), reduced to newline and printable ASCII (96 different characters).
        block_size: characters T in a window.
        steps_per_epoch: training batches in an epoch.
        batch_size: windows in a training batch, over all devices together.
        val_batch_size: windows in a validation batch, over all devices together.
        val_fraction: share of the text, at its end, for validation.
        val_windows: number of validation windows, evenly spread; None takes all.
        seed: seed of the training windows; None takes the one given to ``seed_everything``, or 0
            if there was none. A resumed run keeps the one it had.

    Attributes:
        vocabulary: the text's characters in order of code point; a symbol is an index into it.

    Raises:
        ValueError: if an argument is out of range, ``path`` does not exist or holds no text, or a
            part of the text is shorter than a window.

    Example:
        >>> data = CharText(block_size=8, batch_size=2)
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, x.dtype, bool((x[:, 1:] == y[:, :-1]).all()), len(data.vocabulary)
        (torch.Size([2, 8]), torch.int64, True, 96)
    """

    has_test_data = False

    def __init__(
        self,
        path: str | None = None,
        block_size: int = 64,
        steps_per_epoch: int = 100,
        batch_size: int = 32,
        val_batch_size: int = 128,
        val_fraction: float = 0.1,
        val_windows: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_range(1, steps_per_epoch=steps_per_epoch, val_windows=val_windows)
        check_sizes(block_size=block_size, batch_size=batch_size)
        check_range(above=0, below=1, val_fraction=val_fraction)
        self.path = None if path is None else local_path(path, "path")
        self.block_size = block_size
        self.steps_per_epoch = steps_per_epoch
        self.val_fraction = val_fraction
        self.val_windows = val_windows

    # The text

    def read(self) -> str:
        """The whole text."""
        if self.path is None:
            topics = pydoc_data.topics.topics
            text = "\n\n".join(topics[name] for name in sorted(topics))
            return "".join(filter(set(ASCII).__contains__, text))
        path = Path(self.path)
        files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            expected = "at least one file *.txt in this folder" if path.is_dir() else "a text file"
            raise ValueError(
                f"CharText: no text at `path`={self.path!r}; expected {expected}. Correct the path,"
                " or leave it out for the text that comes with Python."
            )
        try:
            return "\n".join(file.read_text(encoding="utf-8") for file in files)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"CharText: `path`={self.path!r} is no text in UTF-8: {error}. Convert it."
            ) from error

    @cached_property
    def data(self) -> _Data:
        """The vocabulary, and the symbols for training and validation."""
        text = self.read()
        vocabulary = ASCII if self.path is None else _characters(text)
        symbols = _symbols(text, vocabulary)
        border = len(symbols) - int(len(symbols) * self.val_fraction)
        parts = symbols[:border], symbols[border:]
        if min(map(len, parts)) <= self.block_size:
            raise ValueError(
                f"`block_size`={self.block_size} with `val_fraction`={self.val_fraction}: the text "
                f"has {len(parts[0])} characters to train on and {len(parts[1])} to validate on, "
                "and a window needs one more than `block_size`. Make it smaller, or take more text."
            )
        return _Data(vocabulary, *parts)

    @property
    def vocabulary(self) -> str:
        """The text's characters in order of code point."""
        return self.data.vocabulary

    def encode(self, text: str) -> Tensor:
        """The symbols of a text, int64 (length,).

        Raises:
            ValueError: if a character is not in the vocabulary.
        """
        unknown = sorted(set(text) - set(self.vocabulary))
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} in {text!r} is not in the vocabulary, {self.vocabulary!r}."
            )
        return _symbols(text, self.vocabulary).long()

    def decode(self, symbols: Tensor) -> str:
        """The text of symbols (length,)."""
        return "".join(self.vocabulary[index] for index in symbols.tolist())

    def bigram_loss(self, smoothing: float = 0.01) -> float:
        """Validation loss of a table of character pairs, in nats per character.

        A net with a lower loss uses more than the last character.

        Args:
            smoothing: added to the count of every pair.
        """
        train, val = self.data.train.long(), self.data.val.long()
        size = len(self.vocabulary)
        pairs = torch.bincount(train[:-1] * size + train[1:], minlength=size**2)
        counts = pairs.double().view(size, size) + smoothing
        log_p = (counts / counts.sum(1, keepdim=True)).log()
        return -log_p[val[:-1], val[1:]].mean().item()

    # Lightning

    def setup(self, stage: str | None = None) -> None:
        """Read the text, check that the net has enough symbols, and report the bigram loss."""
        size, most = len(self.vocabulary), asked(self._net, NetProtocol.vocab_size, None)
        if most is not None and most < size:
            raise ValueError(
                f"`vocab_size` of the net is {most}, but the text has {size} different characters. "
                f"Set the net's `vocab_size` to {size}."
            )
        if stage == "fit":
            rank_zero_info(
                f"{type(self).__name__}: {len(self.data.train)} characters to train on, "
                f"{len(self.data.val)} to validate on, {size} symbols; a table of character pairs "
                f"has a validation loss of {self.bigram_loss():.3f} nats"
            )

    def train_dataloader(self) -> TensorLoader:
        """Windows that start anywhere, drawn with replacement."""
        windows = self.data.train.unfold(0, self.block_size + 1, 1)
        return self.loader([windows], self.batch_size, _shifted, draws=self.steps_per_epoch)

    def val_dataloader(self) -> TensorLoader:
        """Windows without overlap, in order."""
        windows = self.data.val.unfold(0, self.block_size + 1, self.block_size)
        if self.val_windows is not None and self.val_windows < len(windows):
            windows = windows[torch.linspace(0, len(windows) - 1, self.val_windows).long()]
        return self.loader([windows], self.val_batch_size, _shifted)

    def test_dataloader(self) -> TensorLoader:
        """The validation windows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> TensorLoader:
        """One validation window per process: in prediction only the sampled text is of interest."""
        windows = self.data.val.unfold(0, self.block_size + 1, self.block_size)
        world_size = self.trainer.world_size if self.trainer else 1
        return self.loader([windows[:world_size]], world_size, _shifted)


def _characters(text: str) -> str:
    return "".join(sorted(set(text)))


def _symbols(text: str, vocabulary: str) -> Tensor:
    codes, known = (np.frombuffer(s.encode("utf-32-le"), np.uint32) for s in (text, vocabulary))
    symbols = torch.from_numpy(np.searchsorted(known, codes))
    return symbols.to(torch.uint8 if len(vocabulary) <= 256 else torch.int32)


def _shifted(batch: Batch, generator: Generator) -> Batch:
    (windows,) = batch
    symbols = windows.long()
    return symbols[:, :-1], symbols[:, 1:]
