"""The search for where a training step has met NaN or inf."""

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
    """A batch, and torch's random state before the step that it was for."""

    batch: Any
    batch_idx: int
    random_state: Mapping[str, Tensor]

    @classmethod
    def now(cls, module: LightningModule, batch: Any, batch_idx: int) -> "Taken":
        """With the present random state, in containers that the step cannot empty."""
        states = {"cpu": torch.get_rng_state()}
        if module.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(module.device)
        return cls(map_tensors(batch, lambda tensor: tensor), batch_idx, states)

    def restore_random_state(self, module: LightningModule) -> None:
        """Draw the step's random numbers again."""
        torch.set_rng_state(self.random_state["cpu"])
        if "cuda" in self.random_state:
            torch.cuda.set_rng_state(self.random_state["cuda"], module.device)


@dataclass
class Findings:
    """What is not finite in a step, each with its counts; ``origins`` in order of execution.

    ``loss`` is None where Lightning has not seen one since the update before.
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
        """Whether this process knows where it began."""
        return bool(self.batch or self.origins or self.credit)

    def values(self) -> dict[str, float]:
        """For a history: the loss, and shares of entries by kind and name."""
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
    """Run the step once more, watched, and add what it meets to ``findings``.

    The random numbers are those of the step. Weights, gradients, buffers, modes and random states
    are left as they are. Costs some forward and backward passes on each batch.

    Args:
        trainer: that calls a hook before an optimizer steps.
        module: what it trains.
        taken: the batches whose gradients were accumulated.
        names: submodules to watch.
        findings: of this step so far.
    """
    findings.searched = True
    # All batches, also once something is found: processes that share statistics must run alike.
    for one in taken:
        if findings.batch is None:
            findings.batch = non_finite(one.batch)
        try:
            with (
                guarded(module, trainer, train=True),
                trainer.precision_plugin.train_step_context(),
            ):
                _look(module, one, names, findings)
        except Exception as error:  # the user's code; what it raises must not hide what was found
            findings.failure = f"{type(error).__name__}: {error}"


def non_finite_by_name(tensors: dict[str, Tensor]) -> dict[str, NonFinite]:
    """Those of named tensors that are not finite."""
    return {name: found for name, t in tensors.items() if (found := non_finite(t)) is not None}


def of_all_processes(trainer: Trainer, findings: Findings) -> tuple[Findings, str]:
    """The findings of the first process that knows where it began, and which one that is."""
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
    # Of rules only: elsewhere the name may mean something else.
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
    """Forward and backward pass, as in training."""
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
    """Gradients as they arrived, or, where hooks have seen less than the rule's credits, by place.

    Such a credit replaces the gradient at its unit after hooks have seen zeros there.
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
