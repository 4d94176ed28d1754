"""Finding NaN and inf in training, at the step at which they appear."""

from collections import deque
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lit_credit.callbacks.training.finite_search import (
    Findings,
    Taken,
    non_finite_by_name,
    of_all_processes,
    search,
)
from lit_credit.callbacks.training.finite_update import (
    loss_scale,
    parameters_of,
    running_statistics,
    take_away,
)
from lit_credit.inspect.finite import NonFiniteError, non_finite, seem_finite
from lit_credit.inspect.updates import batches_of
from lit_credit.protocols import RuleProtocol, asked, is_rule
from lit_credit.runs.history import History
from lit_credit.trainer.curves_again import continue_curves
from lit_credit.trainer.logging import log_scalars
from lit_credit.trainer.trainer import run_folder
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.names import check_units, matched_units, submodule_names
from lit_credit.utils.ranges import check_choice

__all__ = ["FiniteGuard", "NonFiniteError"]

Policy = Literal["raise", "warn", "skip"]

_MOST_KEPT = 16
_MOST_SEARCHED = 10
_REMEDY = (
    "Lower the learning rate, clip gradients, look into the named unit for a logarithm, a root or "
    "a division at zero, or set `policy` of FiniteGuard to 'skip' to leave such updates out."
)
_REMEDY_WEIGHTS = (
    "An update before has made them so, or the checkpoint that was loaded had them: go back to an "
    "earlier checkpoint, and lower the learning rate or clip gradients."
)


class FiniteGuard(Callback):
    """Detects NaN and inf in the loss and in gradients before the optimizer steps, and says where.

    A step that is not finite runs once more, with its random numbers, and is watched. The report
    names the first submodule in whose output NaN or inf appears; the first submodule, from the top,
    whose credit (the gradient at its output, under any rule) is not finite; and the parameters
    whose gradients or values are not finite. The guard works with lit_credit's rules and any
    LightningModule, with automatic and manual optimization, accumulation and several optimizers,
    each of which makes its own updates. It does not see optimizers that Lightning has not wrapped,
    such as those from ``self.optimizers(use_pl_optimizer=False)``. While all is finite, training is
    bit-identical.

    - ``raise`` ends the run with :class:`NonFiniteError`; the weights are those before the update.
    - ``warn`` continues, and warns the first time.
    - ``skip`` sets the gradients of that optimizer to None, so that weights, momentum and weight
      decay stay as they are. Running statistics of normalisations are restored. Accumulated
      gradients are dropped as a whole. Counters and schedulers advance. If the weights themselves
      are not finite, for example after an inner iteration of LBFGS, it raises.

    Under 16-mixed, gradients that overflow because of the loss scale are left to the GradScaler.
    All processes take the same decision; the report comes from a process that knows the origin.

    Each event is a row of ``<log_dir>/finite_guard.jsonl`` at the number of optimizer steps before
    it. A row has ``finite/loss``, and shares of entries ``finite/activation/UNIT``,
    ``finite/credit/UNIT``, ``finite/gradient/PARAMETER``, ``finite/parameter/PARAMETER``,
    ``finite/batch``. After the tenth event it has only the loss, and no step runs again. Loggers
    get the counts ``finite/events`` and ``finite/skipped``.

    Each update costs one norm of every gradient and one wait for the device, and with several
    processes one all-reduce of a boolean. The guard keeps the batches of the update, at most 16.

    Args:
        policy: what to do when a step is not finite.
        units: names or patterns of the submodules to watch when a step runs again, of the module
            or of its ``net``; None watches all.

    Raises:
        ValueError: if ``policy`` is none of the three, or ``units`` is not a list or matches
            nothing.
        NonFiniteError: when a step is not finite, as ``policy`` says.

    Example::

        trainer = Trainer(callbacks=[FiniteGuard(policy="skip")])
    """

    name = "finite_guard"

    def __init__(self, policy: Policy = "raise", units: list[str] | None = None) -> None:
        super().__init__()
        check_choice(get_args(Policy), policy=policy)
        check_units(units, otherwise="all submodules")
        self.policy = policy
        self.units = units
        self.history = History()
        self.events = self.skipped = 0
        self._path: Path | None = None
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._forget()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the submodules and the run's folder."""
        if stage != "fit":
            return
        names = submodule_names(pl_module)
        self._names = names if self.units is None else matched_units(self.units, names)
        folder = run_folder(trainer)
        self._path = folder and folder / f"{self.name}.jsonl"
        self.history = History()
        self.events = self.skipped = 0
        self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, with the rows of a resumed run."""
        # Events after the checkpoint are found again, including those at the checkpoint's step.
        self.history.open(self._path, -1, trainer.ckpt_path)
        continue_curves(trainer, self.history.saved_at)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch, the random state, and statistics that the forward pass may spoil."""
        if self.policy == "skip" and not self._taken:
            self._statistics = running_statistics(pl_module)
        self._taken.append(Taken.now(pl_module, batch, batch_idx))
        self._updates = 0

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss, on its device."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the losses and gradients of the update."""
        if self._is_bad(trainer, optimizer):
            self._act(trainer, pl_module, optimizer)
        self._updates += 1
        self._losses.clear()
        if _updates_of(pl_module) > 1:
            last = self._taken.pop()
            self._taken.append(Taken.now(pl_module, last.batch, last.batch_idx))
            if self.policy == "skip":
                self._statistics = running_statistics(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Release batches whose gradients have been used."""
        if self._updates:
            self._forget()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the number of events."""
        if self.events:
            text = f"{self.events} updates not finite, {self.skipped} left out"
            rank_zero_info(f"FiniteGuard: {text}.")
        self._forget()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Release all batches."""
        self._forget()

    # State

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows so far, and the counts."""
        return {**self.history.state(), "events": self.events, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows and the counts of a resumed run."""
        self.history.load(state_dict)
        self.events, self.skipped = state_dict["events"], state_dict["skipped"]

    # Helpers

    def _forget(self) -> None:
        self._taken: deque[Taken] = deque(maxlen=_MOST_KEPT)
        self._losses: deque[Tensor] = deque(maxlen=_MOST_KEPT)
        self._statistics = []
        self._updates = 0

    def _is_bad(self, trainer: Trainer, optimizer: Optimizer) -> bool:
        losses = list(self._losses)
        gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
        bad = False
        if not seem_finite([*losses, *gradients]):
            scale = loss_scale(trainer)
            # A scale of 1 causes no overflow: gradients that are not finite then would stay so.
            looked_at = losses if scale is not None and scale > 1 else [*losses, *gradients]
            bad = non_finite(looked_at) is not None
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        return bad

    def _act(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        first = self.events == 0
        findings = self._findings(trainer, module, optimizer)
        if self.events < _MOST_SEARCHED:
            search(trainer, module, self._parts(module), self._names, findings)
        findings, where = of_all_processes(trainer, findings)
        fatal = self.policy == "raise" or (self.policy == "skip" and bool(findings.parameters))
        skipping = self.policy == "skip" and not fatal
        self.events += 1
        self.skipped += skipping
        self._record(trainer, findings)
        text = self._text(trainer, findings, where)
        if fatal:
            raise NonFiniteError(text)
        if first:
            rank_zero_warn(text)
        if skipping:
            take_away(trainer, optimizer)
            for buffer, before in self._statistics:
                buffer.copy_(before)

    def _findings(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer
    ) -> Findings:
        names = {id(p): name for name, p in module.named_parameters()}
        own = {names.get(id(p), "a parameter outside"): p for p in parameters_of(optimizer)}
        factor = 1.0 / (loss_scale(trainer) or 1.0)
        if module.automatic_optimization:
            factor *= trainer.accumulate_grad_batches
        losses = [float(loss.sum()) * factor for loss in self._losses]
        bad = [loss for loss in losses if not torch.tensor(loss).isfinite()]
        gradients = {name: p.grad for name, p in own.items() if p.grad is not None}
        return Findings(
            loss=next(reversed(bad or losses), None),
            gradients=non_finite_by_name(gradients),
            parameters=non_finite_by_name(dict(module.named_parameters())),
        )

    def _parts(self, module: LightningModule) -> list[Taken]:
        """The batches of this update."""
        updates = _updates_of(module)
        if updates == 1 or not self._taken:
            return list(self._taken)
        last = self._taken[-1]
        part = batches_of(last.batch, updates)[self._updates]
        return [Taken(part, last.batch_idx, last.random_state)]

    def _record(self, trainer: Trainer, findings: Findings) -> None:
        step, epoch = trainer.global_step, trainer.current_epoch
        found = findings.values()
        kept = found if self.events <= _MOST_SEARCHED else found.keys() & {"loss"}
        values = {f"finite/{tag}": found[tag] for tag in kept}
        if trainer.is_global_zero:
            self.history.append(step, epoch, self.name, values)
            counts = {"finite/events": self.events, "finite/skipped": self.skipped}
            log_scalars(trainer, counts, step)

    def _text(self, trainer: Trainer, findings: Findings, where: str) -> str:
        batch = self._taken[-1].batch_idx if self._taken else "n/a"
        text = (
            f"training is not finite at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch}, batch {batch}{where}). {findings.text()}"
        )
        if findings.parameters:
            return f"{text} {_REMEDY_WEIGHTS}"
        if self.policy == "warn":
            return f"{text} Training goes on, and later such steps are only counted. {_REMEDY}"
        if self.policy == "skip":
            return f"{text} The update is left out; later ones are only counted."
        return f"{text} The weights are those before this update. {_REMEDY}"


def _updates_of(module: LightningModule) -> int:
    """Updates per training step of a rule; in other modules the name may mean something else."""
    return asked(module, RuleProtocol.updates_per_step, 1) if is_rule(module) else 1
