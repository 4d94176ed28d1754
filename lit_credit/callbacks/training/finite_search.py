"""Searching for the place where NaN or inf appear in a training step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.training.dry_step import dry_step
from lit_credit.callbacks.training.finite_trace import finite_trace
from lit_credit.inspect.finite import NonFinite, non_finite
from lit_credit.inspect.state.guard import guarded
from lit_credit.inspect.unit_names import parse_unit
from lit_credit.protocols import ModuleProtocol, asked, is_rule, method
from lit_credit.utils.nested import map_tensors

__all__ = ["Findings", "Taken", "non_finite_by_name", "of_all_processes", "search"]

_MOST_NAMED = 3


@dataclass(frozen=True)
class Taken:
    """A batch, and torch's random state before its step."""

    batch: Any
    batch_idx: int
    random_state: Mapping[str, Tensor]

    @classmethod
    def now(cls, module: LightningModule, batch: Any, batch_idx: int) -> "Taken":
        """Take a batch with the current random state, in containers that the step cannot empty."""
        states = {"cpu": torch.get_rng_state()}
        if module.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(module.device)
        return cls(map_tensors(batch, lambda tensor: tensor), batch_idx, states)

    def restore_random_state(self, module: LightningModule) -> None:
        """Restore the random state, so that the step draws the same random numbers."""
        torch.set_rng_state(self.random_state["cpu"])
        if "cuda" in self.random_state:
            torch.cuda.set_rng_state(self.random_state["cuda"], module.device)


@dataclass
class Findings:
    """The non-finite tensors of a step, each with its counts; ``origins`` in execution order.

    ``loss`` is None if Lightning has not seen a loss since the previous update.
    """

    loss: float | None
    batch: NonFinite | None = None
    origins: dict[str, NonFinite] = field(default_factory=dict)
    credit: dict[str, NonFinite] = field(default_factory=dict)
    gradients: dict[str, NonFinite] = field(default_factory=dict)
    parameters: dict[str, NonFinite] = field(default_factory=dict)
    failure: str = ""
    searched: bool = False

    @property
    def are_located(self) -> bool:
        """Whether this process knows where NaN or inf began."""
        return bool(self.batch or self.origins or self.credit)

    def values(self) -> dict[str, float]:
        """Values for a history: the loss, and shares of entries by kind and name."""
        found: dict[str, float] = {} if self.loss is None else {"loss": self.loss}
        if self.batch is not None:
            found["batch"] = self.batch.share
        for kind, counts in (
            ("activation", self.origins),
            ("credit", self.credit),
            ("gradient", self.gradients),
            ("parameter", self.parameters),
        ):
            found |= {f"{kind}/{name}": count.share for name, count in counts.items()}
        return found

    def text(self) -> str:
        """Sentences that name what was found, from the batch to the weights."""
        parts = ["No loss seen" if self.loss is None else f"Loss {self.loss:.4g}"]
        if self.batch is not None:
            parts.append(f"The batch has {self.batch}")
        parts += _named("First activation:", self.origins, 1)
        parts += _named("First credit, from the top:", self.credit, 1)
        parts += _named("Gradient of", self.gradients, _MOST_NAMED)
        parts += _named("Weights of", self.parameters, _MOST_NAMED)
        if self.failure:
            parts.append(f"The step could not be run again to find the unit: {self.failure}")
        elif self.searched and not self.are_located:
            parts.append("Run again, every activation and every credit of the step was finite")
        return ". ".join(part.rstrip(".") for part in parts) + "."


def search(
    trainer: Trainer,
    module: LightningModule,
    taken: Sequence[Taken],
    names: Sequence[str],
    findings: Findings,
) -> None:
    """Run the step again, watch it, and add what is not finite to ``findings``.

    The random numbers are those of the step. Weights, gradients, buffers, modes and random states
    do not change. Costs some forward and backward passes on each batch.

    Args:
        trainer: the Trainer, in a hook before an optimizer step.
        module: the module that it trains.
        taken: the batches whose gradients were accumulated.
        names: names of the submodules to watch.
        findings: the findings of this step so far.
    """
    findings.searched = True
    # All batches, even after a finding: processes that share statistics must run the same passes.
    for one in taken:
        if findings.batch is None:
            findings.batch = non_finite(one.batch)
        try:
            with (
                guarded(module, trainer, train=True),
                trainer.precision_plugin.train_step_context(),
            ):
                _look(module, one, names, findings)
        except Exception as error:  # an error of the user's code must not hide findings
            findings.failure = f"{type(error).__name__}: {error}"


def non_finite_by_name(tensors: dict[str, Tensor]) -> dict[str, NonFinite]:
    """The tensors that are not finite, by name."""
    return {name: found for name, t in tensors.items() if (found := non_finite(t)) is not None}


def of_all_processes(trainer: Trainer, findings: Findings) -> tuple[Findings, str]:
    """The findings of the first process that knows the origin, and a text that names it."""
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return findings, ""
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, findings)

    def knows_less(rank: int) -> tuple[bool, bool]:
        loss = found[rank].loss
        return not found[rank].are_located, loss is None or math.isfinite(loss)

    rank = min(range(len(found)), key=knows_less)
    return found[rank], f", process {rank}"


def _look(module: LightningModule, taken: Taken, names: Sequence[str], findings: Findings) -> None:
    taken.restore_random_state(module)
    with finite_trace(module, names) as trace:
        _run(module, taken)
    findings.origins = findings.origins or trace.activations
    arrived = trace.gradients
    # Rules only: in other modules the name may mean something else.
    credit = method(module, ModuleProtocol.credit) if is_rule(module) else None
    if credit is not None:
        taken.restore_random_state(module)
        given = credit(taken.batch).items()
        watched = {n: c for n, c in given if not set(names).isdisjoint(parse_unit(n).members)}
        credits = non_finite_by_name(watched)
        units = list(asked(module, ModuleProtocol.credit_units, ()) or ())
        arrived = _from_the_top(units, arrived, credits)
    findings.credit = findings.credit or arrived


def _run(module: LightningModule, taken: Taken) -> None:
    """Run a forward and a backward pass, as in training."""
    ours = is_rule(module) or method(module, ModuleProtocol.batch_loss) is not None
    if not ours and not module.automatic_optimization:
        indexed = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        batch = map_tensors(taken.batch, Tensor.clone)
        dry_step(module, batch, *([taken.batch_idx] if indexed else []))
        return
    scalar = Chunk(module, taken.batch, index=taken.batch_idx).surrogate()
    parameters = [p for p in module.parameters() if p.requires_grad]
    torch.autograd.grad(scalar, parameters, allow_unused=True)


def _from_the_top(
    units: Sequence[str], gradients: Mapping[str, NonFinite], credits: Mapping[str, NonFinite]
) -> dict[str, NonFinite]:
    """Gradients in order of arrival, or by place if hooks have missed a credit of the rule.

    At such a unit hooks have seen zeros; its credit then replaces the gradient.
    """
    if credits.keys() <= gradients.keys():
        return dict(gradients)
    inside = {
        unit: {
            n: found
            for n, found in gradients.items()
            if any(f"{n}.".startswith(f"{member}.") for member in parse_unit(unit).members)
        }
        for unit in units
    }
    of_units = {n for found in inside.values() for n in found}
    ordered = {n: found for n, found in gradients.items() if n not in of_units}
    for unit in reversed(units):
        ordered |= {unit: credits[unit]} if unit in credits else {}
        ordered |= inside[unit]
    return ordered


def _named(what: str, found: Mapping[str, NonFinite], most: int) -> list[str]:
    if not found:
        return []
    texts = [f"`{name}` ({counts})" for name, counts in list(found.items())[:most]]
    more = f" and {len(found) - most} more" if len(found) > most > 1 else ""
    return [f"{what} {', '.join(texts)}{more}"]
