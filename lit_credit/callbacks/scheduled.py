"""What all scheduled diagnostics share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_credit.callbacks.declared import refuse_unused
from lit_credit.callbacks.reported import ReportedDiagnostic
from lit_credit.callbacks.undefined import tell_undefined
from lit_credit.utils.batch_loss import (
    LossFunction,
    check_batch_loss,
    check_loss_function,
    given_loss,
    name_of,
)
from lit_credit.utils.compiled import check_compiled
from lit_credit.utils.history import History
from lit_credit.utils.logging import log_charts, log_scalars
from lit_credit.utils.nested import is_plain
from lit_credit.utils.probe import check_size, probe_batch
from lit_credit.utils.probing import probing
from lit_credit.utils.ranges import check_range
from lit_credit.utils.trainer import (
    callbacks_of,
    check_trainer,
    epochs_completed,
    is_at_epoch_start,
    is_last_epoch,
    run_folder,
)

__all__ = ["ScheduledDiagnostic"]


class ScheduledDiagnostic(ReportedDiagnostic, ABC):
    """A measurement on a fixed probe, before training, on a schedule, and at the end of fit.

    Each measurement is one row of ``<log_dir>/<name>.jsonl`` and one scalar a tag in every logger;
    at the end of fit a figure goes to TensorBoard, or W&B, and to ``<log_dir>/figures/<name>.png``;
    some diagnostics also write a table, ``<log_dir>/<name>.csv``, and print what it says. A second
    callback of the same name in one Trainer is told apart by a number: ``<name>-1.jsonl``,
    ``<section>-1/...``. Only rank zero measures; training is not changed by a single bit.

    The loss of a module that is no rule of ours is what its ``training_step`` returns in eval mode,
    with nothing logged; a module that optimizes manually needs a method ``batch_loss(batch)``, or
    the callback ``loss``; so does one that waits for other processes (``all_gather``). A
    measurement runs eagerly, whatever is compiled, and in the precision of the weights, without
    autocast. It sees the weights being trained, also beside a callback that averages them, except
    in the epoch that ``StochasticWeightAveraging`` adds for batch norms.

    With ``ddp_spawn`` or ``ddp_notebook`` the process that measures is gone after fit, and
    ``history`` of the callback that was given stays empty: read the files. Strategies that shard
    weights are refused.

    Args:
        every_n_epochs: measure after every so many epochs.
        every_n_steps: measure after every so many optimizer steps instead.
        n_samples: rows of the probe, the first ones of the validation data, at most as many as
            there are; None takes ``default_n_samples``, or all if there are fewer.
        units: names or glob patterns of submodules, in forward order; None takes what the module
            declares. Names are those of the LightningModule or of its ``net``.
        figure: draw the figure.
        loss: ``loss(module, batch)`` with a scalar, where the module's own is not the one to look
            at, or cannot be had; in YAML the import path of a function. None asks the module. The
            update that a rule makes stays its own.

    Raises:
        ValueError: if an interval or ``n_samples`` is below 1, if both intervals are given, if
            ``units`` is not a list or is an empty one, or if ``n_samples``, ``units`` or ``loss``
            is given to a diagnostic that makes no use of it; when training starts, if
            ``n_samples`` is given and the data have fewer rows.
    """

    charts: Sequence[str] = ()
    """Tags below the section that TensorBoard's custom scalars show with all layers together."""
    options: ClassVar[Sequence[str]] = ()
    """The subclass's own arguments, by which two instances in one Trainer may differ."""
    uses_loss: ClassVar[bool] = True
    """Whether a measurement runs the module's loss."""
    uses_probe: ClassVar[bool] = True
    """Whether a measurement looks at data; if not, its batch is None."""
    uses_samples: ClassVar[bool] = False
    """Whether ``n_samples`` counts something other than rows of the probe."""
    uses_units: ClassVar[bool] = True
    """Whether ``units`` choose what is measured."""
    default_n_samples: ClassVar[int] = 1024
    draw_each: bool = False
    """Whether the figure is drawn at every measurement, and not only at the end."""

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        n_samples: int | None = None,
        units: list[str] | None = None,
        figure: bool = True,
        loss: LossFunction | None = None,
    ) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"`every_n_epochs` is {every_n_epochs} and `every_n_steps` is {every_n_steps}; "
                "give one of them."
            )
        check_range(1, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        check_range(1, n_samples=n_samples)
        if units is not None and (isinstance(units, str) or not units):
            raise ValueError(
                f"`units` is {units!r}, expected a list of names or patterns such as ['blocks.*'], "
                "or None for what the module declares."
            )
        refuse_unused(
            type(self),
            n_samples=(n_samples, self.uses_probe or self.uses_samples),
            units=(units, self.uses_units),
            loss=(loss, self.uses_loss),
        )
        if loss is not None:
            check_loss_function(loss)
        super().__init__(figure)
        self.every_n_epochs = (
            1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        )
        self.every_n_steps = every_n_steps
        self.n_samples = self.default_n_samples if n_samples is None else n_samples
        self.units = units
        self.loss = loss
        self.probe: Any = None
        self._proved: dict[str, float] | None = None
        self._n_samples_given = n_samples is not None

    # What a diagnostic defines

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Resolve names and check what the module offers, in ``setup``."""

    def prove(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """Check the module's assumed structure against numbers, before the first measurement.

        Called once a fit, on the probe, as :meth:`measure` is.

        Returns:
            What was proved: a statement and its largest relative error. The first row of the
            history holds it as ``proved``.

        Raises:
            MisconfigurationException: if the structure is not what the measurement assumes.
        """
        return {}

    @abstractmethod
    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """Values by tag, without the section; called in eval mode with gradients enabled."""

    # Schedule

    @property
    def state_key(self) -> str:
        """Distinct for every set of arguments that bears on the rows, and every sibling."""
        arguments = ("every_n_epochs", "every_n_steps", "n_samples", "units", *self.options)
        loss = {} if self.loss is None else {"loss": name_of(self.loss)}
        return self._generate_state_key(
            **{name: getattr(self, name) for name in arguments},
            sibling=self._rank_among_siblings,
            **loss,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before training."""
        if stage != "fit":
            return
        check_trainer(trainer, type(self).__name__)
        check_compiled(pl_module)
        self._find_place(trainer)
        # Nothing of an earlier fit; what a checkpoint holds is loaded after this.
        self.history, self.probe, self._last_step = History(), None, -1
        self._drawn_step = -1
        self._proved = None
        if self.uses_loss and self.loss is None:
            check_batch_loss(pl_module)
        self.prepare(trainer, pl_module)

    def _find_place(self, trainer: Trainer) -> None:
        siblings = [c for c in _diagnostics(trainer) if c.name == self.name]
        self._rank_among_siblings = siblings.index(self)
        self._folder = run_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the probe and measure before the first step."""
        if not trainer.is_global_zero:
            return
        path = self._folder and self._folder / f"{self._numbered(self.name)}.jsonl"
        self.history = History(path, self.history.rows)
        log_charts(trainer, self._charts(trainer))
        if self.uses_probe:
            self.probe = self._shared_probe(trainer, pl_module)
            if self._n_samples_given:
                check_size(self.probe, self.n_samples)
        rows, epoch = self.history.rows, trainer.current_epoch
        if rows:
            self._last_step = rows[-1]["step"]
        if not rows or (is_at_epoch_start(trainer) and self._is_due(epoch)):
            self._measure(trainer, pl_module, epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after a step that is due."""
        every = self.every_n_steps
        # Not `% every == 0`: with several optimizers steps are counted in twos and threes.
        if every is not None and trainer.global_step // every > self._last_step // every:
            self._measure(trainer, pl_module, epochs_completed(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after an epoch that is due."""
        epoch = trainer.current_epoch + 1
        # Not left to `on_train_end`, where weights may have been replaced by averaged ones.
        if self._is_due(epoch) or is_last_epoch(trainer):
            self._measure(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once more, if the end was not due, and sum up."""
        self._measure(trainer, pl_module, trainer.current_epoch)
        self._sum_up(trainer)

    def _is_due(self, epoch: int) -> bool:
        return self.every_n_epochs is not None and epoch % self.every_n_epochs == 0

    def _measure(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and self._last_step < step:
            self._measure_at(step, trainer, module, epoch)

    def _measure_at(self, step: int, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        self._last_step = step
        if self._proved is None:  # in a resumed run again, whose first row has it already
            with probing(module), given_loss(self.loss):
                self._proved = self.prove(module, self.probe)
        with probing(module), given_loss(self.loss):
            values = self.measure(module, self.probe)
        if not values:
            return
        section = self._numbered(self.section)
        tagged = {f"{section}/{tag}": value for tag, value in values.items()}
        tell_undefined(self.history.rows, step, tagged)
        proved = {} if self.history.rows else self._proved
        self.history.append(step, epoch, self.name, tagged, proved)
        log_scalars(trainer, tagged, step)
        if self.draw_each:
            self._draw(trainer)

    # State

    def state_dict(self) -> dict[str, Any]:
        """The rows so far and the probe; one of special types is taken again after a resume."""
        return {
            "rows": self.history.rows,
            "probe": self.probe if is_plain(self.probe) else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows and the probe of a resumed run."""
        self.history = History(rows=state_dict["rows"])
        self.probe = state_dict["probe"]

    def _shared_probe(self, trainer: Trainer, module: LightningModule) -> Any:
        """The probe that another diagnostic has, so that memory and checkpoint hold it once."""
        alike = [c.probe for c in _diagnostics(trainer) if c.n_samples == self.n_samples]
        for probe in alike:
            if probe is not None:
                return move_data_to_device(probe, module.device)
        return probe_batch(trainer, module, self.n_samples)

    def _charts(self, trainer: Trainer) -> dict[str, dict[str, list[Any]]]:
        """From the run's first diagnostic the charts of all; a second layout would overwrite."""
        if _diagnostics(trainer)[0] is not self:
            return {}
        layout: dict[str, dict[str, list[Any]]] = {}
        for diagnostic in _diagnostics(trainer):
            section = diagnostic._numbered(diagnostic.section)
            for chart in diagnostic.charts:
                tags = f"^{section}/{chart}(/.*)?$"
                layout.setdefault(section, {})[chart] = ["Multiline", [tags]]
        return layout


def _diagnostics(trainer: Trainer) -> list[ScheduledDiagnostic]:
    return [c for c in callbacks_of(trainer) if isinstance(c, ScheduledDiagnostic)]


def missing(callback: Callback, module: LightningModule, what: str, remedy: str) -> Exception:
    """The error for a module that lacks what a diagnostic needs."""
    return MisconfigurationException(
        f"{type(callback).__name__} needs {what}, which {type(module).__name__} does not have. "
        f"{remedy}"
    )
