"""The base class of rules under which no gradient passes between units."""

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Size, Tensor, nn

from lit_credit.feedback.activations import ActivationWatch, ends_bare, followed_by_activation
from lit_credit.feedback.broadcast import Broadcast
from lit_credit.feedback.credits import Credits, normalized_credits
from lit_credit.feedback.learned import feedback_parameters
from lit_credit.feedback.unit_checks import (
    check_coverage,
    check_cut,
    check_recompute,
    check_sent,
    stray_parameters,
)
from lit_credit.feedback.units import UnitGraphs, local_units
from lit_credit.inspect.probe.training_batch import training_batch
from lit_credit.inspect.state.guard import held
from lit_credit.inspect.unit_names import with_prefix
from lit_credit.rules.base import CreditRule
from lit_credit.tasks import Task
from lit_credit.utils.compiled import compiled_part
from lit_credit.utils.names import submodule_names
from lit_credit.utils.random_state import preserved_rng
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["LocalRule"]


class LocalRule(CreditRule):
    """A rule that hands each unit a credit signal at its output, and the readout the true gradient.

    Credit enters at the end of a unit; inside the unit the gradient is exact. In the literature
    credit enters behind the activation, ``delta_l = (B_l e) * f'(z_l)``; so in a net without
    residual blocks a unit should be a layer with its activation. ``units: [fc1, fc2]`` with
    activations between lacks ``f'`` and is another rule; a warning says so. Write ``fc1+act1`` if
    the activation is a submodule, or ``fc1->`` if it is a function: the unit then ends at the input
    of the next unit or of the readout. See :class:`lit_credit.rules.CreditRule` for unit names.

    The update is the gradient of ``loss(readout on the detached last state) + sum_l <f_l,
    stopgrad(a_l)>``, where f_l is the output of unit l on detached inputs and a_l its credit. The
    sum is never computed: each credit enters the backward pass of the loss at its unit.

    A unit that does not run in a step, such as a randomly dropped layer, gets no credit, and its
    parameters get no gradient (None), as under backpropagation. A warning names units that have not
    run by the end of the first epoch. With several processes such nets need the strategy
    ``ddp_find_unused_parameters_true``, also as under backpropagation.

    See :class:`lit_credit.rules.CreditRule` for the other arguments.

    Args:
        normalize_credit: scale each sample's credit to unit root mean square when it is delivered;
            each position of a sequence (N, T, d) by itself, a feature map (N, C, H, W) as a whole.
        stray: what to do with trainable parameters outside of units and readout, such as a class
            token: ``error`` lists them, ``freeze`` keeps them at their initial values, ``train``
            lets them learn from the credit of the next unit, or, if they lie inside a unit that
            ends at an input, from the credit of that unit.
        recompute: keep only the inputs of each submodule of a unit and run the submodule again in
            the backward pass: less memory for one more forward pass.
        scale_penalty: weight of a penalty that keeps the outputs of the units small: every unit l
            adds ``scale_penalty * mean |f_l|^2`` to the scalar that is differentiated, f_l its
            output; the mean is over samples, or positions of a sequence. In a residual net f_l is
            what a block adds to the stream. Credit as diagnostics show it is without the penalty.

    Raises:
        ValueError: if there are no units; if units or readout overlap; if a trainable parameter is
            in neither and ``stray`` is ``error``; if the net is compiled; at the first batch, if no
            unit runs, if a unit runs only in part, if the submodules of a unit do not run one after
            the other, if the net bypasses a unit's end, or if a unit's output does not have one row
            per sample.
    """

    chained: ClassVar[bool] = False
    """Whether a unit's credit is computed from the next unit's, so that the order matters."""

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        clip_norm: float | None = None,
        clip_per_unit: float | dict[str, float] | None = None,
        units: list[str] | None = None,
        readout: list[str] | None = None,
        updates_per_step: int = 1,
        *,
        normalize_credit: bool = False,
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        check_range(0, scale_penalty=scale_penalty)
        super().__init__(
            net=net,
            task=task,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_interval=lr_interval,
            clip_norm=clip_norm,
            clip_per_unit=clip_per_unit,
            units=units,
            readout=readout,
            updates_per_step=updates_per_step,
            group_options=group_options,
        )
        self.scale_penalty = scale_penalty
        self.normalize_credit = normalize_credit
        self.stray = stray
        self.recompute = recompute
        self.is_built = False
        self._ran: set[str] = set()  # units that ran in any pass
        self._watched: set[str] = set()  # units checked for activations behind them
        self._trained: set[str] = set()  # units that ran in training
        self._check_units()
        if recompute:
            check_recompute(self.net, self.units)
        if recompute and scale_penalty:
            raise ValueError(
                f"`scale_penalty` is {scale_penalty}, which needs the units' outputs, but with "
                "`recompute` they are not kept. Set one of the two to 0 or false."
            )
        self._warn_of_bare_ends()

    def configure_callbacks(self) -> list[Any]:
        """Also refuse a rule that has been compiled since its construction."""
        self._check_uncompiled(self)
        return super().configure_callbacks()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("send")
        if own is not None:
            cls.send = _with_batch(own, cls.__name__)  # type: ignore[method-assign]

    # Methods that a local rule defines

    @abstractmethod
    def send(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        """The units' credits.

        ``normalize_credit`` and ``scale_penalty`` are applied to the returned credits.

        Args:
            error: the gradient of the loss at the net's output or, with :attr:`error_at_unit`, at
                the output of the last unit that ran; (N, ..., C).
            shapes: shape of the output of each unit that ran, by the name of the unit.
            scale: factor on the loss, such as that of a GradScaler; ``error`` includes it. A credit
                that is not linear in the error must be multiplied by it.
            batch: the batch; ``self.task.target(batch)`` is its target.
        """

    def build(self, outputs: Mapping[str, Tensor], output: Tensor) -> None:
        """Make the parameters whose shapes depend on the units' outputs; by default none.

        Called before the optimizer is made, if :attr:`builds` is set.

        Args:
            outputs: output of each unit on a few samples, by the name of the unit.
            output: the net's output on them.
        """

    @property
    def builds(self) -> bool:
        """Whether :meth:`build` makes parameters, so that a batch must run before the training."""
        return False

    def feedback_gradients(
        self, error: Tensor, outputs: Mapping[str, Tensor], batch: Any
    ) -> Mapping[nn.Parameter, Tensor]:
        """Gradients of the feedback matrices that learn, from a backward pass; by default none.

        Args:
            error: as in :meth:`send`.
            outputs: the units' outputs, detached.
            batch: the batch.
        """
        return {}

    # Units and credit

    @property
    def error_at_unit(self) -> bool:
        """Whether the error is the true gradient at the last unit, not at the net's output."""
        return False

    def on_train_epoch_end(self) -> None:
        """Warn of units that did not run in the first epoch."""
        super().on_train_epoch_end()
        idle = [name for name in self.units if name not in self._trained]
        if idle and self.trainer.current_epoch == 0:
            rank_zero_warn(
                f"{type(self).__name__}: units {choice(idle)} did not run in the first epoch, so "
                "nothing in them has learned. Take them out of `units` if they are not meant to."
            )

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, twice: with the units cut apart, its gradient is the rule's update."""
        broadcast = self._broadcast(batch)
        known = set(self._ran)
        loss, graphs = self.run_units(batch, broadcast)
        if self.training:
            self._trained.update(graphs.outputs)
        learns = any(output.requires_grad for output in graphs.outputs.values())
        if learns and not known >= graphs.outputs.keys() and isinstance(loss, Tensor):
            last = list(graphs.outputs)[-1]
            check_sent(loss, f"unit {last!r}" if self.error_at_unit else "the net's output")
        broadcast.watch(loss)
        return loss, loss

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that the output of each unit that ran receives, of the output's shape."""
        cut = _Cut()
        loss, graphs = self.run_units(batch, cut)
        shapes = {name: output.shape for name, output in graphs.outputs.items()}
        if not shapes:
            return {}
        (error,) = torch.autograd.grad(loss, cut.leaf)
        credits = self._deliver(error, shapes, 1.0, batch)
        return {with_prefix(name, "net."): credits.dense(name) for name in shapes}

    def run_units(self, batch: Any, error: "Broadcast | _Cut") -> tuple[Tensor, UnitGraphs]:
        """Run the net with its units cut apart.

        Args:
            batch: what the task takes.
            error: called with the tensor whose gradient is the error, and with the units' graphs;
                the forward pass continues with the tensor that it returns.

        Returns:
            The loss, and the units' graphs.
        """
        # Watch what follows each unit only once: it does not depend on the values.
        watch = None if self._watched >= self._ran and self._watched else ActivationWatch()
        graphs: UnitGraphs

        def extend(name: str, value: Tensor) -> Tensor:
            return error.extend(name, value, graphs)

        with (
            local_units(
                self.net,
                self.units,
                detach_inputs=self.stray != "train",
                recompute=self.recompute,
                tap=extend if self.error_at_unit else None,
                watch=watch,
            ) as graphs,
            watch or nullcontext(),
        ):
            output = self(*self.task.inputs(batch))
        self._check_passages(graphs)
        if not self._ran >= graphs.outputs.keys():
            check_cut(graphs, output)
            self._ran.update(graphs.outputs)
        if watch is not None:
            self._warn_of_activations(watch.followed)
            self._watched.update(graphs.outputs)
        if not self.error_at_unit:
            output = error(output, graphs)
        return self.task.loss(output, batch), graphs

    def _check_passages(self, graphs: UnitGraphs) -> None:
        """Refuse units that ran in part, or, if chained, in another order than in ``units``."""
        if graphs.unfinished:
            raise ValueError(
                f"units {choice(graphs.unfinished)} did not run to their end in the forward pass, "
                "or not in the order of their members. Take them out of `units`, or join what runs "
                "one after the other. Where an activation is a function and not a submodule, write "
                "'fc1->', not 'fc1+act1'."
            )
        ran = list(graphs.outputs)
        if self.chained and ran != [name for name in self.units if name in graphs.outputs]:
            raise ValueError(
                "`units` ran in another order than they are given in. Give them in forward order: "
                f"{choice(ran)}."
            )

    def setup(self, stage: str) -> None:
        """Run one batch before a training whose parameters depend on the units' outputs."""
        super().setup(stage)
        if stage == "fit" and self.builds and not self.is_built:
            self.prepare(training_batch(self.trainer, self))

    def prepare(self, batch: Any) -> None:
        """Make the parameters whose shapes depend on the units' outputs, from one batch.

        A Trainer's ``fit`` does this by itself; call it where the rule is trained without one. The
        batch runs in eval mode, without gradients, and leaves nothing behind.

        Raises:
            ValueError: if a unit does not run on the batch.
        """
        with held(self), preserved_rng(), torch.no_grad():
            self.eval()
            cut = _Cut()
            _, graphs = self.run_units(batch, cut)
        idle = [name for name in self.units if name not in graphs.outputs]
        if idle:
            raise ValueError(
                f"units {choice(idle)} do not run on the first batch in eval mode, so the shapes "
                "of their outputs are not known. Take them out of `units`."
            )
        self.build({n: v.detach() for n, v in graphs.outputs.items()}, cut.leaf.detach())
        self.is_built = True

    def _broadcast(self, batch: Any) -> Broadcast:
        learned = list(feedback_parameters(self).values())

        def learn(error: Tensor, outputs: Mapping[str, Tensor]) -> list[Tensor | None]:
            found = self.feedback_gradients(error, outputs, batch)
            return [found.get(parameter) for parameter in learned]

        return Broadcast(
            partial(self._deliver, batch=batch),
            self.scale_penalty,
            learned,
            learn if learned else None,
        )

    def _deliver(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        credits = self.send(error, shapes, scale, batch)
        return normalized_credits(credits, shapes, scale) if self.normalize_credit else credits

    def _warn_of_bare_ends(self) -> None:
        """Warn of units that end in front of an activation which is a submodule."""
        self._bare = {name for name in self.units if ends_bare(self.net, name)}
        joined: dict[str, str] = {}
        for name in self.units:
            following = followed_by_activation(self.net, name)
            # A norm that is a unit of its own belongs to the layer in front of it.
            if following and not any(f"{full}+".find(f"+{name}+") > 0 for full in joined.values()):
                joined[name] = "+".join([name, *following])
        self._bare -= joined.keys()
        self._warn(list(joined), "an activation", list(joined.values()))

    def _warn_of_activations(self, followed: Mapping[str, str]) -> None:
        """Warn of units whose output went into an activation in a forward pass."""
        units = [name for name in followed if name in self._bare]
        kinds = ", ".join(dict.fromkeys(followed[name] for name in units))
        self._warn(units, kinds, [f"{name}->" for name in units])

    def _warn(self, units: Sequence[str], what: str, remedies: Sequence[str]) -> None:
        if units:
            rank_zero_warn(
                f"{type(self).__name__}: the credit of {_some(units)} enters in front of {what}, "
                "so its derivative f'(z) is missing from the update (see Nokland 2016, equation 7)."
                f" To make layer and activation one unit, write in `units`: {_some(remedies)}."
            )

    def _check_uncompiled(self, module: nn.Module) -> None:
        part = compiled_part(module)
        if part is not None:
            raise ValueError(
                f"{part!r} is compiled, but {type(self).__name__} cuts the graph at the units' "
                "borders, inside of what torch.compile has fused. Leave `net` and the rule "
                "uncompiled."
            )

    def _check_units(self) -> None:
        if not self.units:
            raise ValueError(
                f"`units` is not given, and {type(self.net).__name__} declares no `credit_units`. "
                f"Choose from: {choice(submodule_names(self.net))}."
            )
        self._check_uncompiled(self.net)
        if self.stray == "freeze":
            stray = set(stray_parameters(self.net, [*self.units, *self.readout]))
            for name, parameter in self.net.named_parameters():
                if name in stray:
                    parameter.requires_grad_(False)
        if self.stray != "train":
            check_coverage(self.net, self.units, self.readout)
        if self.stray == "error" and not self.readout:
            raise ValueError(
                "`readout` is empty, so that the net's last layer is a unit and would learn from "
                "random feedback. Name in `readout` what follows the last unit."
            )


class _Cut:
    """Replaces the tensor whose gradient is the error by a leaf."""

    leaf: Tensor

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        self.leaf = value.detach().requires_grad_()
        return self.leaf

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        return self(value, graphs).clone()  # the next operation may work in place


def _with_batch(send: Any, owner: str) -> Any:
    """A ``send`` of before, without ``batch``, with it."""
    parameters = inspect.signature(send).parameters
    if len(parameters) > 4 or any(p.kind == p.VAR_POSITIONAL for p in parameters.values()):
        return send
    warnings.warn(
        f"`send` of {owner} takes no `batch`. Write `send(self, error, shapes, scale, batch)`; the "
        "old form works until the next release.",
        DeprecationWarning,
        stacklevel=4,
    )

    @wraps(send)
    def with_batch(
        self: Any, error: Tensor, shapes: Any, scale: Tensor | float, batch: Any
    ) -> Credits:
        credits: Credits = send(self, error, shapes, scale)
        return credits

    return with_batch


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
