"""What all scheduled diagnostics share."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from lit_credit.utils.history import History, Row
from lit_credit.utils.logging import log_charts, log_figure, log_scalars
from lit_credit.utils.probe import probe_batch
from lit_credit.utils.probing import probing
from lit_credit.utils.trainer import callbacks_of, is_at_epoch_start, run_folder

__all__ = ["ScheduledDiagnostic"]


class ScheduledDiagnostic(Callback):
    """A measurement on a fixed probe, before training, on a schedule, and at the end of fit.

    Each measurement is one row of ``<log_dir>/<name>.jsonl`` and one scalar a tag in every logger;
    at the end of fit a figure goes to TensorBoard and to ``<log_dir>/figures/<name>.png``. A second
    callback of the same class in one Trainer is told apart by a number: ``<name>-1.jsonl``,
    ``<section>-1/...``. Only rank zero measures; training is not changed by a single bit.

    Args:
        every_n_epochs: measure after every so many epochs.
        every_n_steps: measure after every so many optimizer steps instead.
        n_samples: rows of the probe, the first ones of the validation data.
        units: names or glob patterns of submodules, in forward order; None takes what the module
            declares. Names are those of the LightningModule or of its ``net``.
        figure: draw the figure.

    Raises:
        ValueError: if an interval or ``n_samples`` is below 1, or both intervals are given.
    """

    name: ClassVar[str]
    section: ClassVar[str]
    charts: ClassVar[Sequence[str]] = ()
    """Tags below the section that TensorBoard's custom scalars show with all layers together."""

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        n_samples: int = 1024,
        units: list[str] | None = None,
        figure: bool = True,
    ) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"`every_n_epochs` is {every_n_epochs} and `every_n_steps` is {every_n_steps}; "
                "give one of them."
            )
        for argument, value in (
            ("every_n_epochs", every_n_epochs),
            ("every_n_steps", every_n_steps),
            ("n_samples", n_samples),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{argument}` is {value}, expected at least 1.")
        self.every_n_epochs = (
            1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        )
        self.every_n_steps = every_n_steps
        self.n_samples = n_samples
        self.units = units
        self.figure = figure
        self.history = History()
        self.probe: Any = None
        self._rank_among_siblings = 0
        self._folder: Path | None = None

    # What a diagnostic defines

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Resolve names and check what the module offers, in ``setup``."""

    @abstractmethod
    def measure(self, module: LightningModule, batch: Any) -> dict[str, float]:
        """Values by tag, without the section; called in eval mode with gradients enabled."""

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The figure of the whole history, or None."""
        return None

    # Schedule

    @property
    def state_key(self) -> str:
        """Distinct for every set of arguments and every sibling."""
        return self._generate_state_key(
            every_n_epochs=self.every_n_epochs,
            every_n_steps=self.every_n_steps,
            n_samples=self.n_samples,
            units=self.units,
            sibling=self._rank_among_siblings,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before training."""
        if stage != "fit":
            return
        siblings = [c for c in callbacks_of(trainer) if type(c) is type(self)]
        self._rank_among_siblings = siblings.index(self)
        self._folder = run_folder(trainer)
        self.history = History()
        self.prepare(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the probe and measure before the first step."""
        if not trainer.is_global_zero:
            return
        path = self._folder and self._folder / f"{self._numbered(self.name)}.jsonl"
        self.history = History(path, self.history.rows)
        log_charts(trainer, self._charts(trainer))
        if self.probe is None:
            self.probe = probe_batch(trainer, self.n_samples)
        self.probe = pl_module.transfer_batch_to_device(self.probe, pl_module.device, 0)
        epoch = trainer.current_epoch
        if not self.history.rows or (is_at_epoch_start(trainer) and self._is_due(epoch)):
            self._measure(trainer, pl_module, epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after a step that is due."""
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._measure(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after an epoch that is due."""
        epoch = trainer.current_epoch + 1
        if self._is_due(epoch):
            self._measure(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once more, if the end was not due, and draw."""
        self._measure(trainer, pl_module, trainer.current_epoch)
        if not trainer.is_global_zero or not self.figure or not self.history.rows:
            return
        figure = self.draw(self.history.rows, self._numbered(self.section))
        if figure is None:
            return
        log_figure(trainer, self._numbered(self.section) + "/figure", figure, trainer.global_step)
        if self._folder is not None:
            folder = self._folder / "figures"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{self._numbered(self.name)}.png", dpi=150)

    def _is_due(self, epoch: int) -> bool:
        return self.every_n_epochs is not None and epoch % self.every_n_epochs == 0

    def _measure(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        step = trainer.global_step
        rows = self.history.rows
        if not trainer.is_global_zero or (rows and rows[-1]["step"] >= step):
            return
        with probing(module):
            values = self.measure(module, self.probe)
        if not values:
            return
        section = self._numbered(self.section)
        tagged = {f"{section}/{tag}": value for tag, value in values.items()}
        self.history.append(step, epoch, self.name, tagged)
        log_scalars(trainer, tagged, step)

    # State

    def state_dict(self) -> dict[str, Any]:
        """The rows so far and the probe."""
        return {"rows": self.history.rows, "probe": self.probe}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows and the probe of a resumed run."""
        self.history = History(rows=state_dict["rows"])
        self.probe = state_dict["probe"]

    def _numbered(self, name: str) -> str:
        rank = self._rank_among_siblings
        return f"{name}-{rank}" if rank else name

    def _charts(self, trainer: Trainer) -> dict[str, dict[str, list[Any]]]:
        """From the run's first diagnostic the charts of all; a second layout would overwrite."""
        diagnostics = [c for c in callbacks_of(trainer) if isinstance(c, ScheduledDiagnostic)]
        if diagnostics[0] is not self:
            return {}
        layout: dict[str, dict[str, list[Any]]] = {}
        for diagnostic in diagnostics:
            section = diagnostic._numbered(diagnostic.section)
            for chart in diagnostic.charts:
                layout.setdefault(section, {})[chart] = ["Multiline", [f"{section}/{chart}/.*"]]
        return layout


def missing(callback: Callback, module: LightningModule, what: str, remedy: str) -> Exception:
    """The error for a module that lacks what a diagnostic needs."""
    return MisconfigurationException(
        f"{type(callback).__name__} needs {what}, which {type(module).__name__} does not have. "
        f"{remedy}"
    )
