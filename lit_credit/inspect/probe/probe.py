"""Taking the fixed rows of the data that diagnostics measure on."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_credit.inspect.probe.layout import Layout, UnknownRows, proved_layout, row_layout
from lit_credit.inspect.probe.probe_loader import ProbeLoader, probe_loader, training_rows
from lit_credit.inspect.probe.rows import Chunks, first_rows, known_rows
from lit_credit.inspect.probe.undisturbed import undisturbed
from lit_credit.utils.nested import cloned, described, items_of, tensors_of
from lit_credit.utils.private_names import before_batch_transfer
from lit_credit.utils.random_state import preserved_rng, run_seed

__all__ = ["Probe", "in_stage", "received", "take_probe"]


@dataclass
class Probe:
    """Rows of the data, in batches as the module receives them.

    Attributes:
        chunks: the batches.
        rows: how many rows each batch has. If rows are not known, there is one batch, counted as 1.
        layout: which parts of a batch have one entry per row; None if that is not known.
        limit: the Trainer's argument that made the probe smaller than the data, if one did.
    """

    chunks: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    layout: Layout | None = None
    limit: str | None = None

    @property
    def n_rows(self) -> int:
        """The number of rows in all chunks; 1 if rows are not known."""
        return sum(self.rows)

    def some(self, count: int) -> "Probe":
        """A probe of the first ``count`` chunks."""
        return replace(self, chunks=self.chunks[:count], rows=self.rows[:count])

    def first(self, count: int) -> Any:
        """At most ``count`` rows of the first chunk; the whole chunk if rows are not known."""
        chunk = self.chunks[0]
        return chunk if self.layout is None else first_rows(chunk, count, self.layout)

    def checksum(self) -> int:
        """A number that differs between probes of different data."""
        found = 0
        for tensor in tensors_of(self.chunks):
            if tensor.layout == torch.strided and not tensor.is_nested:
                flat = tensor.detach().cpu().contiguous().flatten()
                found = zlib.crc32(flat.view(torch.uint8).numpy().data, found)
        return found

    def digest(self) -> str:
        """A number in hexadecimal that differs between probes of different rows.

        Unlike :meth:`checksum`, it is the same for every size of chunks.
        """
        found: dict[str, Any] = {}
        for index, chunk in enumerate(self.chunks):
            for path, part, is_rows in _leaves(chunk, self.layout):
                if is_rows or index == 0:
                    found.setdefault(path, sha256()).update(_bytes_of(part))
        whole = "".join(f"{path} {found[path].hexdigest()} " for path in sorted(found))
        return sha256(whole.encode()).hexdigest()[:16]

    def check_size(self, n_samples: int, *, refuse: bool = True) -> None:
        """Refuse a probe that has fewer rows than requested because the data have fewer.

        Args:
            n_samples: the requested number.
            refuse: False says in a line how many rows there are. A number that suits the data of
                fit need not suit those of a validation or test.

        Raises:
            ValueError: if it has fewer than ``n_samples`` rows without a limit of the Trainer.
        """
        rows = self.n_rows
        if self.layout is None or rows >= n_samples:
            return
        if self.limit is not None:
            rank_zero_info(f"`{self.limit}` leaves {rows} of {n_samples} rows of `n_samples`.")
            return
        if not refuse:
            rank_zero_info(f"The data have {rows} of {n_samples} rows of `n_samples`.")
            return
        raise ValueError(
            f"`n_samples` is {n_samples}, but the data have only {rows} rows. Set it to at most "
            f"{rows}, or leave it out."
        )


def _leaves(part: Any, layout: Layout | None, path: str = "") -> Iterator[tuple[str, Any, bool]]:
    """The parts of a batch that hold data: path, part, and whether it has an entry per row."""
    if isinstance(layout, dict):
        for key, item in items_of(part):
            yield from _leaves(item, layout.get(key), f"{path}/{key}")
    elif layout != "count":
        yield path, part, layout == "row"


def _bytes_of(part: Any) -> bytes:
    """The contents of tensors and arrays; of anything else, its text if that is text or numbers."""
    if isinstance(part, Tensor):
        if part.layout != torch.strided or part.is_nested:
            return b""
        flat = part.detach().cpu().contiguous().flatten()
        return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    if isinstance(part, np.ndarray):
        return part.tobytes()
    items = items_of(part)
    if items:
        return b"".join(_bytes_of(item) for _, item in items)
    return repr(part).encode() if isinstance(part, str | int | float | bytes) else b""


def take_probe(
    trainer: Trainer,
    module: LightningModule,
    n_samples: int,
    chunk_size: int | None = None,
    source: Literal["val", "train"] = "val",
) -> Probe:
    """Take the first rows of the validation or training data, as ``module`` receives them.

    In ``trainer.validate`` and ``trainer.test`` they are rows of the data that are validated or
    tested.

    The rows keep the structure of the batches, have the Trainer's precision and the module's
    device, and have passed the hooks of batch transfer. Of several validation loaders the first is
    read; a ``CombinedLoader`` that joins batches is read as a whole. Without validation data, the
    rows are training data. The Trainer's limits of batches apply, except a limit of 0.

    Rows are never guessed. A loader that fetches samples of its dataset by index makes a batch of
    two and a batch of three samples: a part that grows with the samples has one entry per row. For
    other loaders, one or two batches must show their rows; see :func:`row_layout`. If rows stay
    unknown, the probe is one whole batch, and one line says so. Rows of batches that differ in
    shape, as padded text does, are not joined.

    The loaders, their samplers, workers, datasets and random states stay as they were; see
    :func:`undisturbed`. Global random numbers come from the run's seed, and the order is that of
    the first epoch, so that a resumed run takes the same probe.

    Args:
        trainer: a Trainer whose fit, validation or test has started.
        module: the module that the Trainer trains, validates or tests.
        n_samples: rows to take; fewer if the data have fewer.
        chunk_size: largest number of rows of a chunk. None takes the size of a training batch, or
            that of the first batch read if there is no training loader that tells its size.
        source: which data.

    Raises:
        MisconfigurationException: if there is no batch, or if taking rows would change the
            training.
    """
    loader = probe_loader(trainer, source)
    with preserved_rng(), undisturbed(loader.loader), in_stage(trainer, loader.stage):
        _seed(run_seed())
        read = (received(trainer, module, raw) for raw in loader.batches())
        head = list(islice(read, 1))
        if not head:
            raise MisconfigurationException(
                f"the {loader.stage.dataloader_prefix} data are empty, so the diagnostics have no "
                "probe. Give the Trainer data."
            )
        try:
            layout = _layout(trainer, module, loader, head, read)
            chunk_size = chunk_size or training_rows(trainer) or known_rows(head[0], layout)
            chunks = Chunks(layout, n_samples, chunk_size)
            for batch in chain(head, read):
                chunks.add(batch)
                if chunks.missing == 0:
                    break
            probe = Probe(chunks.finished(), chunks.rows, layout)
        except UnknownRows as reason:
            rank_zero_info(
                f"the rows of the {loader.stage.dataloader_prefix} batches are not known: {reason}."
                " The probe is one whole batch, and `n_samples` and `chunk_size` do not count."
            )
            return Probe([cloned(head[0])], [1])
    if chunks.missing and loader.is_limited:
        probe.limit = f"limit_{loader.stage.dataloader_prefix}_batches"
    return probe


def _layout(
    trainer: Trainer,
    module: LightningModule,
    loader: ProbeLoader,
    head: list[Any],
    read: Iterator[Any],
) -> Layout:
    """Find which parts of the batches have one entry per row.

    Args:
        trainer: the Trainer.
        module: the module that receives the batches.
        loader: the loader of the batches.
        head: the first batch, to which others are added where they are needed.
        read: all other batches.
    """
    if loader.holds_rows:
        return row_layout(head[0])
    while loader.lacks_samples and (more := list(islice(read, 1))):
        head += more
    try:
        made = [received(trainer, module, raw) for raw in loader.proofs()]
    except Exception:  # a collate function or hook that cannot take so few samples
        made = []
    if made:
        layout = proved_layout(*made)
        known_rows(head[0], layout)
        return layout
    if len(head) == 1:
        head += islice(read, 1)
    layout = row_layout(*head[:2])
    samples, rows = loader.samples, known_rows(head[0], layout)
    if samples not in (None, rows):
        raise UnknownRows(f"of {samples} samples are made {rows} rows, {described(head[0])}")
    return layout


def received(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """The batch after all that Lightning's loops do to it before the module sees it."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = before_batch_transfer(module, batch)
    # The module's own device: after fit, when a resumed run may measure once more, it is the CPU.
    return trainer.strategy.batch_to_device(batch, device=module.device, dataloader_idx=0)


@contextmanager
def in_stage(trainer: Trainer, stage: RunningStage) -> Iterator[None]:
    """Set the Trainer's stage: hooks of batch transfer ask for it to augment training data only."""
    before = trainer.state.stage
    trainer.state.stage = type(before or stage)(stage)  # of the Trainer's own package
    try:
        yield
    finally:
        trainer.state.stage = before


def _seed(seed: int) -> None:
    """Seed the generators that :func:`preserved_rng` restores."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
