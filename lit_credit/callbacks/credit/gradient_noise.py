"""Noise of the gradient: how it compares with the signal at the size of a batch."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk, unfrozen
from lit_credit.callbacks.base.parameters import check_parameters, measured_parameters
from lit_credit.callbacks.base.points import layer_tag, unit_names
from lit_credit.callbacks.base.whole_probe import WholeProbeDiagnostic
from lit_credit.callbacks.credit.noise_figure import noise_figure
from lit_credit.functional import frobenius_norm, gradient_cosine, noise_scale
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.inspect.probe.probe_loader import training_rows
from lit_credit.protocols import ModuleProtocol, asked
from lit_credit.runs.history import Row
from lit_credit.trainer.accumulation import batches_of_an_update
from lit_credit.utils.private_names import trainer_of
from lit_credit.utils.ranges import check_range

__all__ = ["GradientNoise"]


class GradientNoise(WholeProbeDiagnostic):
    r"""Is the batch large enough? The noise of the gradient against its signal.

    The probe is cut into ``groups`` of as many rows each; a remainder is left out. Its rows must be
    in random order: groups of data that are sorted by class differ by their classes. From the
    gradients of the groups and of all of them come unbiased estimates of ``|G|^2``, the squared
    norm of the mean gradient, and of ``tr S``, the variance of a single row's gradient. Logs, for
    the module's own update over all trained parameters:

    - ``noise/scale``: the simple noise scale ``tr S / |G|^2``, in rows. The gradient of a batch of
      that many rows is half noise, by power. A training batch far above it gains little from more
      rows; far below it, twice the rows make almost twice the progress a step. NaN where the
      estimate of ``|G|^2`` is not positive: the probe is too small to see the signal;
    - ``noise/snr``: ``|G|^2 B / tr S``, power of the signal over that of the noise in a training
      batch of B rows; left out if B is not known. Its estimate may be negative;
    - ``noise/cosine``: the cosine of the gradients of two halves of the probe;
    - ``noise/scale/L00`` .., ``noise/cosine/L00`` ..: the same by unit, in forward order, if units
      are declared or given. Loggers get them for at most 16 units, the history always;
    - ``noise/exact_scale``, ``noise/exact_snr``, ...: the same for the exact gradient.

    B counts the rows of all processes and accumulated batches. An update that is not a mean over
    rows, such as one with batch statistics, has no such noise scale in the strict sense. All groups
    draw the same random numbers, so noise that a rule or a dropout draws itself is not counted.

    The probe is training data by default, unlike that of other diagnostics: once a net has learned
    its training data, their gradient vanishes, while that of other data does not. In
    ``trainer.validate``, ``trainer.test`` and ``diagnose`` it is the data at hand. Training data
    that are a stream cannot be read twice: set ``probe="val"``.

    Costs one forward and backward pass on ``n_samples`` rows, or two if the module's own update is
    not the exact gradient. Takes the memory of a training step and of two copies of the gradients.
    Values depend on ``groups`` but not on ``chunk_size``. See
    :class:`lit_credit.callbacks.ProbeDiagnostic` for the other arguments.

    Args:
        groups: number of groups, even; fewer if the probe has fewer rows.
        units: names or patterns of units; None takes what the module declares, or none.
        probe: source of the probe of a fit: ``train``, or ``val``.

    Raises:
        ValueError: if ``groups`` is not even or below 2; at the first measurement, if the probe has
            fewer than 2 rows.
        MisconfigurationException: if the rows of a batch are not known.

    Reference:
        McCandlish, Kaplan, Amodei, An Empirical Model of Large-Batch Training, 2018,
        arXiv 1812.06162, section 2.2 and appendix A.1.
    """

    name = "gradient_noise"
    section = "noise"
    over_layers = ()
    charts = ("scale", "snr", "cosine", "exact_scale", "exact_snr", "exact_cosine")
    steps_of_a_batch = 4.0
    options = ("groups",)
    headline = (
        Headline(
            "noise_scale",
            "scale",
            order=56,
            log=True,
            unit="rows",
            panel=Panel("Noise scale of the update", "rows", log=True, order=7),
        ),
    )

    def __init__(
        self,
        *,
        groups: int = 8,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "train",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            n_samples=n_samples,
            chunk_size=chunk_size,
            units=units,
            loss=loss,
            probe=probe,
            mode=mode,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(2, groups=groups)
        if groups % 2:
            raise ValueError(f"`groups` is {groups}, expected an even number: it makes two halves.")
        self.groups = groups

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the units, and the rows of a training batch."""
        declared = asked(module, ModuleProtocol.credit_units, None)
        has_units = self.units is not None or (isinstance(declared, list | tuple) and declared)
        self.names = unit_names(self, module, self.units) if has_units else []
        self.layer_texts = [f"parameters of {name.removeprefix('net.')}" for name in self.names]
        check_parameters(module)
        if self.units is not None:
            check_parameters(module, self.names)
        self._batch_rows: int | None = None
        self._batch = math.nan

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the probe; in a validation or test from the data at hand."""
        self._batch_rows = training_rows(trainer)
        source = self.source
        try:
            self.source = "val" if self._evaluates else source
            super().begin(trainer, module)
        finally:
            self.source = source

    def _not_evaluated(self) -> str | None:
        return None

    def compute(self) -> dict[str, float]:
        """Noise scale, ratio and cosine, of the own update and of the exact gradient."""
        module = self.kept[0].module
        if self._batch_rows is not None:
            self._batch = float(self._batch_rows * batches_of_an_update(trainer_of(module)))
        parameters = list(measured_parameters(module).values())
        parts = {"": list(range(len(parameters)))}
        for index, unit in enumerate(self.names):
            own = {id(p) for p in measured_parameters(module, [unit]).values()}
            parts[layer_tag(index)] = [i for i, p in enumerate(parameters) if id(p) in own]
        with nullcontext() if parameters[0].requires_grad else unfrozen(module):
            values = self._values(parameters, parts, exact=False)
            is_exact = self._is_exact(parameters)
            exact = values if is_exact else self._values(parameters, parts, exact=True)
        return values | {f"exact_{tag}": value for tag, value in exact.items()}

    def _values(
        self, parameters: Sequence[Tensor], parts: dict[str, list[int]], *, exact: bool
    ) -> dict[str, float]:
        """The values of one kind of gradient; in all two copies of the parameters."""
        count, rows = self._sizes()
        halves = [[torch.zeros_like(p, dtype=_wide(p)) for p in parameters] for _ in range(2)]
        squares = torch.zeros(len(parameters), dtype=torch.float64)
        for index, group in enumerate(groups_of(self.kept, count, rows)):
            found = [torch.zeros_like(p, dtype=_wide(p)) for p in parameters]
            for piece in group:
                for total, g in zip(
                    found, piece.parameter_gradients(parameters, exact=exact), strict=True
                ):
                    total += g
            squares += _squares(found)
            for total, g in zip(halves[2 * index // count], found, strict=True):
                total += g
        return self._numbers(halves, squares / count, parts)

    def _numbers(
        self, halves: Sequence[list[Tensor]], small: Tensor, parts: dict[str, list[int]]
    ) -> dict[str, float]:
        """Noise scale, ratio and cosine of all parameters and of each unit, from sums."""
        count, rows = self._sizes()
        (a, b), dots = map(_squares, halves), _dots(*halves)
        big = (a + b + 2 * dots) / count**2
        values = {}
        for label, places in parts.items():
            found = noise_scale(
                small[places].sum(), big[places].sum(), small_rows=rows, big_rows=rows * count
            )
            size = (a[places].sum() * b[places].sum()).sqrt()
            cosine = dots[places].sum() / size if size > 0 else math.nan
            end = f"/{label}" if label else ""
            values[f"scale{end}"] = float(found.scale)
            values[f"cosine{end}"] = float(cosine)
            if not label and not math.isnan(self._batch):
                ratio = found.signal / found.noise if found.noise > 0 else math.nan
                values["snr"] = float(self._batch * ratio)
        return values

    def _sizes(self) -> tuple[int, int]:
        """The number of groups, and the rows of each."""
        rows = sum(chunk.rows for chunk in self.kept)
        if rows < 2:
            raise MisconfigurationException(
                f"the probe has {rows} row, or its rows are not known, but the noise is found from "
                "several groups of rows. Set `n_samples` to 2 or more, or leave this callback out."
            )
        count = min(self.groups, rows - rows % 2)
        return count, rows // count

    def _is_exact(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the module's own update is the exact gradient, to the bit, on a group."""
        piece = next(next(groups_of(self.kept, *self._sizes())))
        own, exact = (piece.parameter_gradients(parameters, exact=e) for e in (False, True))
        return all(map(torch.equal, own, exact)) and any(bool(g.any()) for g in exact)

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The noise scale beside the training batch."""
        names = [name.removeprefix("net.") for name in self.names]
        return noise_figure(rows, section, batch=self._batch, names=names)


def groups_of(chunks: Sequence[Chunk], count: int, rows: int) -> Iterator[Iterator[Chunk]]:
    """Groups of consecutive rows, each as pieces of chunks whose shares sum to 1.

    Args:
        chunks: chunks in order.
        count: number of groups.
        rows: rows of each group.
    """
    starts, begin = [], 0
    for chunk in chunks:
        starts.append(begin)
        begin += chunk.rows
    for index in range(count):
        yield _pieces(list(zip(chunks, starts, strict=True)), index * rows, (index + 1) * rows)


def _pieces(chunks: Sequence[tuple[Chunk, int]], start: int, stop: int) -> Iterator[Chunk]:
    for chunk, begin in chunks:
        low, high = max(start - begin, 0), min(stop - begin, chunk.rows)
        if low < high:
            yield replace(chunk.part(low, high), share=(high - low) / (stop - start))


def _wide(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    """Squared norms (P,), float64."""
    return torch.stack([frobenius_norm(x).double().cpu() for x in tensors]).square()


def _dots(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Inner products (P,), float64, at any scale."""
    cosines = [
        gradient_cosine(a.reshape(1, -1), b.reshape(1, -1))[0].double().cpu()
        for a, b in zip(one, other, strict=True)
    ]
    sizes = (_squares(one) * _squares(other)).sqrt()
    return torch.where(sizes == 0, 0.0, torch.stack(cosines) * sizes)
