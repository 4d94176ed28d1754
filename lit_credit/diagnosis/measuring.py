"""Measuring diagnostics on a module outside of a fit, once or for each of a series of weights."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tqdm import tqdm

from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.first_run import check_first_run
from lit_credit.callbacks.base.older_states import rename_older_state
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.training.frozen_parameters import FROZEN
from lit_credit.callbacks.training.metric_history import MetricHistory
from lit_credit.diagnosis.notes import Notes
from lit_credit.diagnosis.result import Diagnosis, Finding
from lit_credit.inspect.batch_loss import name_of
from lit_credit.inspect.plain_module import PlainModule
from lit_credit.runs.foreign_weights import Fitted, copied_equal, fitted
from lit_credit.runs.weight_files import trained_weights
from lit_credit.runs.weight_series import SavedWeights
from lit_credit.trainer.missed_validation import run_missed_validation
from lit_credit.utils.compiled import named_weights
from lit_credit.utils.private_names import at_point_of_training, has_loaders
from lit_credit.utils.random_state import preserved_rng, set_random_state
from lit_credit.utils.short_text import choice

__all__ = ["Measuring"]


class Measuring:
    """Diagnostics that measure a module that is not being trained.

    Args:
        trainer: a Trainer that module and data are attached to. Its callbacks are the diagnostics,
            and perhaps a MetricHistory, for which each checkpoint is validated.
        module: the module.
        folder: the folder of histories, figures and tables.
        is_kept: whether it is there when the diagnosis has ended.

    Raises:
        ValueError: if the folder holds another diagnosis.
        MisconfigurationException: if a diagnostic lacks what it needs.
    """

    def __init__(
        self, trainer: Trainer, module: LightningModule, folder: Path, *, is_kept: bool = True
    ) -> None:
        self.trainer, self.module, self.folder, self.is_kept = trainer, module, folder, is_kept
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.diagnostics = [c for c in callbacks if isinstance(c, Diagnostic)]
        self.metrics = next((c for c in callbacks if isinstance(c, MetricHistory)), None)
        self.notes = Notes(folder)
        self._is_told = False
        self._learning = {n: p for n, p in named_weights(module).items() if p.requires_grad}
        for diagnostic in self.diagnostics:
            diagnostic.says_reading = False
            diagnostic.setup(trainer, module, "fit")
        _refuse_missing_data(trainer, self.diagnostics)
        for diagnostic in self.diagnostics:
            stem = diagnostic.stem
            self._continue(diagnostic, stem, diagnostic.state_key + self._given_loss(diagnostic))
            diagnostic.open(trainer, module)
            if isinstance(diagnostic, ProbeDiagnostic) and diagnostic.history.rows:
                self.notes.check_probe(stem, diagnostic.state_dict()["probe_checksum"])
        probes = [d.probe for d in self.diagnostics if isinstance(d, ProbeDiagnostic)]
        if probe := next(filter(None, probes), None):
            check_first_run(module, self.diagnostics, probe.chunks[0])
        if self.metrics is not None:
            self.metrics.setup(trainer, module, "fit")
            self._continue(self.metrics, self.metrics.name, "")
            self.metrics.open(trainer)
        self._note(None)

    def _continue(self, callback: Any, stem: str, arguments: str) -> None:
        rows = self.notes.rows(stem, arguments)
        if rows:  # other data are refused, not warned of
            state = {**self.notes.state(stem), "rows": rows, "probe_checksum": None}
            callback.load_state_dict(state)

    def _given_loss(self, diagnostic: Diagnostic) -> str:
        """The loss of a net that is not a LightningModule, if a diagnostic measures it."""
        given = self.module.given_loss if isinstance(self.module, PlainModule) else None
        if given is None or not isinstance(diagnostic, ProbeDiagnostic):
            return ""
        is_used = diagnostic.needs_loss and diagnostic.loss is None
        return f", loss {name_of(given)}" if is_used else ""

    # Measuring

    def once(self, step: int, epoch: int) -> Diagnosis:
        """Measure the module as it is."""
        for callback, stem in self._histories():
            last = callback.history.last_step
            if last >= step:
                raise ValueError(
                    f"{self.folder / stem}.jsonl has a row of step {last}, and the model is at "
                    f"step {step}, without a name for these weights. Choose another folder."
                )
        self._measure(step, epoch, {}, step)
        return self._report()

    def each(self, series: Iterable[SavedWeights]) -> Diagnosis:
        """Load and measure each checkpoint in turn, and show the progress.

        A step that has a row is not measured again.
        """
        if isinstance(series, Collection):
            self._check(series)
        told, saved, before = False, None, False
        with tqdm(series, desc="checkpoints", unit="", dynamic_ncols=True) as bar:
            for saved in bar:
                self.notes.check(saved)
                if not self._lack(saved.step):
                    before = False  # it is not loaded
                    continue
                bar.set_postfix_str(f"step {saved.step}")
                contents, equal = self._load(saved)
                if equal and before and not told:
                    told = True
                    rank_zero_warn(
                        f"{saved.source} holds the same weights as the checkpoint before it, so "
                        "its rows are equal too. Check that the files are what their names say."
                    )
                before = True
                self._measure(saved.step, saved.epoch or 0, contents, saved)
        if saved is None:
            raise ValueError("`checkpoints` is empty, expected one or more.")
        return self._report(saved)

    def _check(self, series: Collection[SavedWeights]) -> None:
        """Refuse what an earlier diagnosis in the folder does not allow, before any work."""
        for saved in series:
            self.notes.check(saved)
        for callback, stem in self._histories():
            known = {row["step"] for row in callback.history.rows}
            missing = [saved.step for saved in series if saved.step not in known]
            self.notes.check_order(missing, callback.history.last_step, stem)

    def _histories(self) -> Iterator[tuple[Any, str]]:
        yield from ((diagnostic, diagnostic.stem) for diagnostic in self.diagnostics)
        if self.metrics is not None:
            yield self.metrics, self.metrics.name

    def _lack(self, step: int) -> list[Any]:
        """The callbacks that have no row of a step."""
        return [
            callback
            for callback, _ in self._histories()
            if all(row["step"] != step for row in callback.history.rows)
        ]

    def _measure(
        self, step: int, epoch: int, contents: dict[str, Any], measured: SavedWeights | int
    ) -> None:
        trainer, module, lack = self.trainer, self.module, self._lack(step)
        with _as_when_saved(contents):
            if self.metrics in lack:
                at_point_of_training(trainer, step, epoch)
                run_missed_validation(trainer)
            at_point_of_training(trainer, step, contents.get("epoch", epoch))
            for diagnostic in self.diagnostics:
                if diagnostic in lack:
                    self._remember(diagnostic, contents)
                    diagnostic.measure_at(step, trainer, module, epoch)
        self._note(measured)

    def _remember(self, diagnostic: Diagnostic, contents: dict[str, Any]) -> None:
        """Take from a run's checkpoint what the run's first measurement has found."""
        states = dict(contents.get("callbacks") or {})
        keys = [other.state_key for other in self.diagnostics]
        rename_older_state(states, diagnostic.state_key, keys)
        if state := states.get(diagnostic.state_key):
            diagnostic.remember(state)

    def _note(self, measured: SavedWeights | int | None) -> None:
        states = {stem: callback.state_dict() for callback, stem in self._histories()}
        self.notes.write(states, measured)

    def _load(self, saved: SavedWeights) -> tuple[dict[str, Any], bool]:
        """Load a checkpoint; return its contents, and whether the module had equal weights."""
        module, contents = self.module, saved.read()
        contents["state_dict"] = trained_weights(contents)
        if not isinstance(module, PlainModule) and "pytorch-lightning_version" in contents:
            self.trainer.state.fn = TrainerFn.VALIDATING  # the hook must not resume a fit
            try:
                module.on_load_checkpoint(contents)
            finally:
                self.trainer.state.fn = TrainerFn.FITTING
        owner = module.net if isinstance(module, PlainModule) else module  # names in errors
        found = fitted(owner, contents, saved.source)
        self._tell(found, saved)
        frozen = contents.get(FROZEN, ())
        for name, parameter in self._learning.items():
            parameter.requires_grad_(name not in frozen)
        return contents, copied_equal(owner, found.tensors)

    def _tell(self, found: Fitted, saved: SavedWeights) -> None:
        """Say, of the first checkpoint, what was not in the file, and what was not taken."""
        if self._is_told:
            return
        self._is_told = True
        if found.feedback:
            rank_zero_warn(
                f"{saved.source} has no fixed feedback ({choice(found.feedback)}): the matrices "
                "stay as this module drew them, and are not those that the run was trained with."
            )
        if found.kept:
            rank_zero_info(
                f"{saved.source} lacks {choice(found.kept)}, as `strict_loading = False` allows: "
                f"they stay as {type(self.module).__name__} has them."
            )
        if found.ignored:
            rank_zero_info(
                f"{saved.source}: not taken, since {type(self.module).__name__} does not need "
                f"them: {choice(found.ignored)}."
            )

    # The result

    def _report(self, last: SavedWeights | None = None) -> Diagnosis:
        idle = [d for d in self.diagnostics if not d.has_measured and d.history.rows]
        if idle and last is not None:  # figures of the last measurement need one
            self._load(last)
        for diagnostic in self.diagnostics:
            diagnostic.conclude(self.trainer, self.module)
        return Diagnosis(
            [
                Finding(
                    diagnostic.stem,
                    list(diagnostic.history.rows),
                    diagnostic.report.figures,
                    diagnostic.report.tables,
                    diagnostic.report.reading,
                    self.folder if self.is_kept else None,
                )
                for diagnostic in self.diagnostics
            ]
        )


@contextmanager
def _as_when_saved(contents: dict[str, Any]) -> Iterator[None]:
    """Have the random states of the checkpoint, which a module that draws numbers depends on."""
    with preserved_rng():
        if "random_state" in contents:
            set_random_state(contents["random_state"])
        yield


def _refuse_missing_data(trainer: Trainer, diagnostics: list[Diagnostic]) -> None:
    loop = trainer.fit_loop
    if has_loaders(loop) or has_loaders(loop.epoch_loop.val_loop):
        return
    needy = [type(d).__name__ for d in diagnostics if isinstance(d, ProbeDiagnostic)]
    if needy:
        raise MisconfigurationException(
            f"{', '.join(dict.fromkeys(needy))}: there are no data to measure on. Give `data`: a "
            "batch, a loader, or a LightningDataModule; or leave out what needs data."
        )
