"""The base class of rules under which no gradient passes between units."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_credit.feedback.activations import ActivationWatch
from lit_credit.feedback.entry import Entry
from lit_credit.feedback.unit_checks import (
    check_coverage,
    check_cut,
    check_recompute,
    stray_parameters,
)
from lit_credit.feedback.units import LocalUnits, Tap, UnitGraphs
from lit_credit.inspect.activation_checkpoints import checkpoints
from lit_credit.rules.bare_ends import BareEnds
from lit_credit.rules.extra_passes import check_repeats, extra_pass
from lit_credit.rules.net_checks import check_no_energy
from lit_credit.rules.preparation import PreparedRule
from lit_credit.tasks import Task
from lit_credit.utils.compiled import compiled_part, is_eager
from lit_credit.utils.names import submodule_names
from lit_credit.utils.private_names import version_of
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["CutRule"]

_LOCAL_UNITS: "WeakKeyDictionary[CutRule, LocalUnits]" = WeakKeyDictionary()
"""Not an attribute of the rule: a copy of a rule must not cut the net of the original."""


class CutRule(PreparedRule):
    """A rule under which a unit learns from what happens at its own output.

    Each unit runs on detached inputs, and what follows sees its output detached, so that no
    gradient passes from unit to unit. Inside a unit gradients are exact.

    A unit that does not run in a step, such as a randomly dropped layer, does not learn, and its
    parameters get no gradient (None), as under backpropagation. A warning names units that have not
    run by the end of the first epoch. With several processes such nets need the strategy
    ``ddp_find_unused_parameters_true``, also as under backpropagation.

    See :class:`lit_credit.rules.CreditRule` for the other arguments.

    Args:
        stray: what to do with trainable parameters outside of units and readout, such as a class
            token: ``error`` lists them, ``freeze`` keeps them at their initial values, ``train``
            lets them learn from the credit of the next unit, or, if they lie inside a unit that
            ends at an input, from the credit of that unit.
        recompute: keep only the inputs of each submodule of a unit and run the submodule again in
            the backward pass: less memory for one more forward pass.
        scale_penalty: weight of a penalty that keeps the outputs of the units small: every unit l
            adds ``scale_penalty * mean(f_l^2)`` to the scalar that is differentiated, the mean of
            all entries of its output f_l. In a residual net f_l is what a block adds to the stream.
            Credit as diagnostics show it is without the penalty. Source: Hao, Wan, Zhai, 2026,
            arXiv 2606.21126, with 0.01; the mean over features is chosen by the size of the
            stream that they report (docs/rules.md).

    Raises:
        ValueError: if there are no units; if units or readout overlap; if a trainable parameter is
            in neither and ``stray`` is ``error``; if the net is compiled; at the first batch, if no
            unit runs, if a unit runs only in part, if the submodules of a unit do not run one after
            the other, if the net bypasses a unit's end, or if a unit's output does not have one row
            per sample.
    """

    chained: ClassVar[bool] = False
    """Whether a unit's credit is computed from the next unit's, so that the order matters."""
    needs_derivative: ClassVar[bool] = True
    """Whether a unit that ends in front of an activation is warned of: f' is missing there."""

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
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
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
            compile=compile,
        )
        self.scale_penalty = scale_penalty
        self.stray = stray
        self.recompute = recompute
        self._ran: set[str] = set()  # units that ran in any pass
        self._watched: set[str] = set()  # units checked for activations behind them
        self._trained: set[str] = set()  # units that ran in training
        self._overwritten: set[str] | None = None  # units whose outputs are changed in place
        self._is_cut = False  # whether the net runs with its units cut apart
        self._check_units()
        if recompute:
            check_recompute(self.net, self.units)
        if recompute and self.compile_options is not None:
            raise ValueError(
                f"`compile` is {compile}, but `recompute` is true, and torch.compile chooses by "
                "itself what to keep for the backward pass. Set one of the two to false."
            )
        if recompute and scale_penalty:
            raise ValueError(
                f"`scale_penalty` is {scale_penalty}, which needs the units' outputs, but with "
                "`recompute` they are not kept. Set one of the two to 0 or false."
            )
        learning = self.units if self.needs_derivative else []
        self._bare_ends = BareEnds(self.net, learning, type(self).__name__)

    def configure_callbacks(self) -> list[Any]:
        """Also refuse a rule that has been compiled since its construction."""
        self._check_uncompiled(self)
        return super().configure_callbacks()

    @property
    def error_at_unit(self) -> bool:
        """Whether the error is the true gradient at the last unit, not at the net's output."""
        return False

    # One batch

    def on_train_epoch_end(self) -> None:
        """Warn of units that did not run in the first epoch."""
        super().on_train_epoch_end()
        idle = [name for name in self.units if name not in self._trained]
        if idle and self.trainer.current_epoch == 0:
            rank_zero_warn(
                f"{type(self).__name__}: units {choice(idle)} did not run in the first epoch, so "
                "nothing in them has learned. Take them out of `units` if they are not meant to."
            )

    def run_units(
        self,
        batch: Any,
        error: Entry | None = None,
        *,
        inputs: Sequence[Any] | None = None,
        values: Tap | None = None,
        cut_inputs: bool | None = None,
    ) -> tuple[Tensor, UnitGraphs]:
        """Run the net with its units cut apart.

        Args:
            batch: what the task takes.
            error: called with the tensor whose gradient is the error, and with the units' graphs;
                the forward pass continues with the tensor that it returns. None leaves the tensor.
            inputs: what the net is given; None takes the inputs of the batch.
            values: called with a unit's name and its detached output; the net continues with what
                it returns. None leaves the output.
            cut_inputs: cut the graph at the inputs of units too. With False a unit's graph begins
                at what ``values`` has returned for the units before it. None cuts, unless strays
                train.

        Returns:
            The loss, and the units' graphs.
        """
        given = self.task.inputs(batch) if inputs is None else inputs
        output, graphs = self.run_cut(given, error, values, cut_inputs)
        return self.task.loss(output, batch), graphs

    def run_cut(
        self,
        inputs: Sequence[Any],
        error: Entry | None = None,
        values: Tap | None = None,
        cut_inputs: bool | None = None,
    ) -> tuple[Any, UnitGraphs]:
        """The net's output and the units' graphs; see :meth:`run_units`."""
        # Watch what follows each unit only once: it does not depend on the values.
        watch = None if self._watched >= self._ran and self._watched else ActivationWatch()

        def tap(name: str, value: Tensor) -> Tensor:
            value = value if values is None else values(name, value)
            if error is not None and self.error_at_unit:
                return error.extend(name, value, graphs)
            return value

        units = self.local_units()
        cut = self.stray != "train" if cut_inputs is None else cut_inputs
        with units.installed(), checkpoints("direct"), watch or nullcontext():
            tapped = values is not None or self.error_at_unit
            graphs = units.begin(cut, self.recompute, tap if tapped else None, watch)
            with self._cut():
                output = self(*inputs)
        self._check_passages(graphs)
        if not self._ran >= graphs.outputs.keys():
            check_cut(graphs, output)
            self._ran.update(graphs.outputs)
        if watch is not None:
            self._bare_ends.warn_of_activations(watch.followed)
            self._watched.update(graphs.outputs)
        if error is not None and not self.error_at_unit:
            output = error(output, graphs)
        return output, graphs

    def run_silently(
        self, batch: Any, values: Tap | None = None, inputs: Sequence[Any] | None = None
    ) -> Any:
        """The net's output in a pass that keeps no graph and leaves no trace.

        Args:
            batch: what the task takes.
            values: as in :meth:`run_units`.
            inputs: what the net is given; None takes the inputs of the batch.
        """
        units = self.local_units()
        silent = extra_pass(self.net, self.task)
        with torch.no_grad(), silent, units.installed(), checkpoints("direct"):
            units.begin(tap=values)
            with self._cut():
                return self(*(self.task.inputs(batch) if inputs is None else inputs))

    def check_repeats(self, batch: Any) -> None:
        """Refuse, once, a net that answers otherwise when it runs again on a batch.

        For rules that run the net several times in a step. Also find the units whose outputs the
        next operation overwrites, for :meth:`handed_on`.

        Raises:
            ValueError: if two silent passes differ.
        """
        if self._overwritten is not None:
            return
        versions: dict[str, tuple[Tensor, int]] = {}

        def watch(name: str, value: Tensor) -> Tensor:
            versions[name] = value, version_of(value)
            return value

        check_repeats(self, lambda: self.run_silently(batch, watch))
        self._overwritten = {n for n, (v, version) in versions.items() if version_of(v) != version}

    def handed_on(self, name: str, value: Tensor) -> Tensor:
        """What the net goes on with in place of a unit's output, so that the value stays as it is.

        Args:
            name: the unit.
            value: its output, or what replaces it.

        Returns:
            The value; a copy if the operation behind the unit works in place, or before
            :meth:`check_repeats` has found out.
        """
        copies = self._overwritten is None or name in self._overwritten
        return value.clone() if copies else value

    @contextmanager
    def _cut(self) -> Iterator[None]:
        """Have ``forward`` know that it runs inside of :meth:`run_units`."""
        before, self._is_cut = self._is_cut, True
        try:
            yield
        finally:
            self._is_cut = before

    def local_units(self) -> LocalUnits:
        """What cuts the net's passes; made again if a submodule has been replaced."""
        found = _LOCAL_UNITS.get(self)
        if found is not None and found.is_installed:  # a pass inside of a pass
            return LocalUnits(self.net, self.units)
        if found is None or not found.fits(self.net, self.units):
            found = _LOCAL_UNITS[self] = LocalUnits(self.net, self.units)
        return found

    def run_units_compiled(
        self, function: Callable[..., tuple[Tensor, Tensor]], batch: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss and the scalar of a compiled pass with the units cut apart.

        Args:
            function: called with the rule, a :class:`LocalUnits` and the batch; returns the scalar,
                and a detached stack of the loss and the scalar. It begins and ends the pass.
            batch: what the task takes.
        """
        if not self._is_rehearsed:
            self.rehearse(batch)
        units = self.local_units()
        self._trained.update(self.units)
        with units.installed(), checkpoints("direct"), self._cut():
            # Stacked: of two equal results, one of them detached, torch.compile detaches both.
            scalar, both = self._run(function, units, batch)
        return both[0], scalar

    def check_all_ran(self, graphs: UnitGraphs) -> None:
        """Refuse to compile a pass in which a unit does not run, as where layers are dropped."""
        self._check_passages(graphs)
        idle = [name for name in self.units if name not in graphs.outputs]
        if idle:
            raise ValueError(
                f"units {choice(idle)} do not run in a training step, which `compile` does not "
                "allow. Take them out of `units`, or leave `compile` out."
            )

    @property
    def is_compiled_now(self) -> bool:
        """Whether a pass is to run compiled: training, but not a measurement."""
        return self.compile_options is not None and not is_eager()

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

    def _check_uncompiled(self, module: nn.Module) -> None:
        part = compiled_part(module)
        if part is not None:
            raise ValueError(
                f"{part!r} is compiled, but {type(self).__name__} cuts the graph at the units' "
                "borders, inside of what torch.compile has fused. Leave `net` and the rule "
                "uncompiled, and set the rule's `compile: true`."
            )

    def _check_units(self) -> None:
        if not self.units:
            raise ValueError(
                f"`units` is not given, and {type(self.net).__name__} declares no `credit_units`. "
                f"Choose from: {choice(submodule_names(self.net))}."
            )
        self._check_uncompiled(self.net)
        check_no_energy(self.net, type(self).__name__)
        if self.stray == "freeze":
            stray = set(stray_parameters(self.net, [*self.units, *self.readout]))
            for name, parameter in self.net.named_parameters():
                if name in stray:
                    parameter.requires_grad_(False)
        if self.stray != "train":
            check_coverage(self.net, self.units, self.readout)
