"""Diagnostics that run the module on a fixed probe."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.cost import affordable
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.failing_loss import explained
from lit_credit.callbacks.base.failures import named, without_shape
from lit_credit.callbacks.base.report import diagnostics_of
from lit_credit.inspect.batch_loss import (
    LossFunction,
    check_batch_loss,
    check_loss_function,
    check_run,
    name_of,
)
from lit_credit.inspect.capture import Point
from lit_credit.inspect.probe.probe import Probe, take_probe
from lit_credit.inspect.probe.probe_loader import training_rows
from lit_credit.utils.names import check_units
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["ProbeDiagnostic"]


class ProbeDiagnostic(Diagnostic):
    """A diagnostic that runs the module on the rows of a fixed probe.

    The probe passes in chunks, by default as large as a training batch, so that a measurement takes
    about the memory of a training step. Norms, cosines and other values per sample do not depend on
    ``chunk_size``; losses and gradients belong to the mean over the whole probe, in which chunks
    are weighted by their rows.

    If the module is not a rule of lit_credit, its loss is what its ``training_step`` returns in
    eval mode, with nothing logged. A module that optimizes manually, or that waits for other
    processes (``all_gather``), needs a method ``batch_loss(batch)``, or the callback a ``loss``.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        n_samples: rows of the probe, the first ones of the data, at most as many as there are. None
            takes ``default_n_samples``, or all rows if there are fewer; for a large net it takes
            so few that a measurement lasts about 8 training steps, and says so.
        chunk_size: rows that pass at once; None takes the size of a training batch.
        units: names or glob patterns of submodules, in forward order; None takes what the module
            declares. Names are those of the LightningModule or of its ``net``. Of a submodule that
            runs several times in a forward pass, the first run is measured, and one line says so.
        loss: ``loss(module, batch)`` that returns a scalar, for modules whose own loss is
            unsuitable or unavailable; in YAML the import path of a function. None asks the module.
            It does not change the update of a rule.
        probe: source of the probe: ``val``, or ``train`` if the loss does not accept validation
            batches. Without validation data the probe is always training data. ``validate`` and
            ``test`` of the Trainer take it from the data at hand, and with ``train`` measure
            nothing.
        mode: mode of the module: ``eval``, or ``train`` if the module has a loss only in train
            mode. In ``train`` mode batch norms see each chunk by itself.

    Raises:
        ValueError: if ``n_samples`` or ``chunk_size`` is below 1, or ``units`` is empty or not a
            list; when training starts, if ``n_samples`` is given and the data have fewer rows.
    """

    needs_loss: ClassVar[bool] = True
    """Whether it measures the loss or its gradient. A diagnostic that calls ``chunk.values`` and
    ``chunk.forward`` alone sets it to False, and then measures nets without a loss too."""
    default_n_samples: int = 1024
    steps_of_a_batch: float = 1.0
    """Cost of measuring as many rows as a training batch has, in training steps; an estimate."""

    def __init__(
        self,
        *,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "val",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(1, n_samples=n_samples, chunk_size=chunk_size)
        check_units(units)
        if loss is not None:
            check_loss_function(loss)
        self.n_samples = self.default_n_samples if n_samples is None else n_samples
        self.chunk_size = chunk_size
        self.units = units
        self.loss = loss
        self.source = probe
        self.mode = mode
        self.probe: Probe | None = None
        self._passed: dict[Point, bool] = {}
        self._repeated: set[Point] = set()
        self._told_of_repeats = False
        self._has_whole_probe = False
        self._n_samples_given = n_samples is not None
        self._checksum: int | None = None
        self._told_of_probe = False

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments that affect the rows, by name."""
        own: dict[str, Any] = {"n_samples": self.n_samples, "units": self.units}
        unusual = {"chunk_size": (self.chunk_size, None), "probe": (self.source, "val")}
        for name, (value, usual) in (unusual | {"mode": (self.mode, "eval")}).items():
            own |= {name: value} if value != usual else {}
        if self.loss is not None:
            own["loss"] = name_of(self.loss)
        return super().arguments | own

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what can be checked before training, a validation or a test."""
        if stage != "predict" and self.loss is None:
            with named(type(self).__name__):
                (check_batch_loss if self.needs_loss else check_run)(pl_module)
        super().setup(trainer, pl_module, stage)

    def _forget(self) -> None:
        super()._forget()
        self.probe = self._checksum = None  # a checkpoint's is loaded later
        self._has_whole_probe = self._told_of_probe = self._told_of_repeats = False

    def _not_evaluated(self) -> str | None:
        return (
            None if self.source == "val" else "its `probe` is 'train', and there are no such data"
        )

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows so far, and the checksum of the probe, which is taken again."""
        return {**super().state_dict(), "probe_checksum": self._checksum}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows of a resumed run."""
        super().load_state_dict(state_dict)
        self._checksum = state_dict.get("probe_checksum")

    def remember(self, state: Mapping[str, Any]) -> None:
        """Warn if the run measured another probe."""
        super().remember(state)
        self._compare_probe(state.get("probe_checksum"))

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the probe; warn if a resumed run began with another probe."""
        known = self._checksum
        self._take(trainer, module)
        if self._evaluates:  # other data than those of fit
            self._checksum = None
            return
        self._checksum = None if self.probe is None else self.probe.checksum()
        self._compare_probe(known)

    def _compare_probe(self, known: int | None) -> None:
        if known not in (None, self._checksum) and not self._told_of_probe:
            self._told_of_probe = True
            rank_zero_warn(
                f"{type(self).__name__}: the data are not those that this run began with, so its "
                "rows are of another probe from here on. Give the Trainer the data of before."
            )

    def _take(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the probe, or share an equal one of another diagnostic, to keep it only once."""
        if (error := without_shape(self, module)) is not None:
            raise error
        wanted = (self.n_samples, self.chunk_size, self.source)
        whole = None
        for other in diagnostics_of(trainer):
            if (
                isinstance(other, ProbeDiagnostic)
                and other._has_whole_probe
                and (other.n_samples, other.chunk_size, other.source) == wanted
            ):
                whole = other.probe
        whole = take_probe(trainer, module, *wanted) if whole is None else whole
        if self._n_samples_given:
            self.probe = whole
            whole.check_size(self.n_samples, refuse=not self._evaluates)
        else:
            who, rows = type(self).__name__, training_rows(trainer)
            self.probe = affordable(who, module, whole, self.steps_of_a_batch, rows)
        self._has_whole_probe = self.probe is whole

    def chunks(self, module: LightningModule) -> Iterator[Chunk]:
        """The chunks of the probe."""
        probe = self.probe
        if probe is None:
            raise RuntimeError(f"{type(self).__name__} was not set up.")
        for batch, rows in zip(probe.chunks, probe.rows, strict=True):
            yield Chunk(
                module,
                batch,
                rows,
                share=rows / probe.n_rows,
                given=self.loss,
                layout=probe.layout,
                passed=self._passed,
                repeated=self._repeated,
            )

    def smaller(self) -> str:
        """The remedy for lack of memory: half of the rows that passed at once."""
        rows = max(self.probe.rows, default=1) if self.probe is not None else 1
        if rows == 1:  # or a batch whose rows are not known
            return f"of single chunks of the data; {super().smaller()}"
        return f"set `chunk_size={rows // 2}`, half of the {rows} rows that passed at once"

    def measure(
        self, module: LightningModule, chunks: Iterable[Chunk] | None = None
    ) -> dict[str, float]:
        """One measurement; tell of submodules that did not run in any chunk, or ran repeatedly."""
        self._passed.clear()
        self._repeated.clear()
        values = super().measure(module, chunks)
        if not all(self._passed.values()):
            self._tell_idle()
        if self._repeated and not self._told_of_repeats:
            self._told_of_repeats = True
            names = choice(point.module.removeprefix("net.") for point in sorted(self._repeated))
            rank_zero_info(
                f"{type(self).__name__}: {names} ran several times in one forward pass of the "
                "probe, and the first run is measured. If other runs matter, choose as `units` the "
                "submodules around them."
            )
        return values

    def _tagged(self, module: LightningModule) -> dict[str, float]:
        try:
            return super()._tagged(module)
        except Exception:  # whatever it is: the user's own code runs in a measurement
            if self.attempts.is_first(self.history.rows) and self.probe is not None:
                who, chunk = type(self).__name__, next(iter(self.chunks(module)))
                run = Chunk.loss if self.needs_loss else Chunk.forward
                found = explained(who, chunk, run, mode=self.mode, source=self.source)
                if found is not None:
                    raise found from found.__cause__
            raise

    def _tell_idle(self) -> None:
        idle = dict.fromkeys(point.module for point, passed in self._passed.items() if not passed)
        text = f"{choice(idle)} did not run in the forward pass of the probe, or handed on no "
        is_choice = self.units is not None and self.attempts.is_first(self.history.rows)
        if is_choice or not any(self._passed.values()):
            raise ValueError(f"`units`: {text}floating-point tensor. Choose submodules that run.")
        self.attempts.tell(max(self._last_step, 0), f"{text}floating-point tensor")
