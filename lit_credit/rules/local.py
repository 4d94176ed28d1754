"""Rules under which no gradient passes from one unit to another."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Size, Tensor, nn

from lit_credit.feedback.credit import Broadcast, Credits
from lit_credit.feedback.units import (
    UnitGraphs,
    check_coverage,
    check_recompute,
    local_units,
    stray_parameters,
)
from lit_credit.rules.base import CreditRule
from lit_credit.utils.compiled import compiled_part
from lit_credit.utils.names import submodule_names
from lit_credit.utils.nested import first_tensor, replace_first
from lit_credit.utils.short_text import choice

__all__ = ["LocalRule"]


class LocalRule(CreditRule):
    """A rule that hands each unit a credit signal at its output, and the readout the true gradient.

    Its update is the gradient of ``loss(readout on the detached last state) + sum_l <f_l,
    stopgrad(a_l)>``, with f_l the output of unit l on detached inputs and a_l its credit. The sum
    is never computed: the credits enter the backward pass of the loss, where they are due.

    Args:
        *args: see :class:`lit_credit.rules.CreditRule`.
        normalize_credit: scale each sample's credit to unit root mean square when it is delivered.
        stray: what becomes of trainable parameters outside of units and readout, such as a class
            token: ``error`` lists them, ``freeze`` keeps them at their initial values, ``train``
            lets them learn from the credit of the unit that follows.
        recompute: keep only the inputs of each unit and run every unit a second time in the
            backward pass: less memory for one more forward.
        **kwargs: see :class:`lit_credit.rules.CreditRule`.

    Raises:
        ValueError: if there are no units, if units or readout overlap, if a trainable parameter is
            in neither (and ``stray`` is ``error``), or if the net is compiled.
    """

    chained: ClassVar[bool] = False
    """Whether a unit's credit is made of the next unit's, so that their order counts."""

    def __init__(
        self,
        *args: Any,
        normalize_credit: bool = False,
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.normalize_credit = normalize_credit
        self.stray = stray
        self.recompute = recompute
        self._check_units()
        if recompute:
            check_recompute(self.net, self.units)

    def configure_callbacks(self) -> list[Any]:
        """Refuse what has been compiled since, too."""
        self._check_uncompiled(self)
        return super().configure_callbacks()

    @abstractmethod
    def send(self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float) -> Credits:
        """The units' credits, made of the error; see :data:`lit_credit.feedback.credit.Feedback`.

        The error is the gradient at the net's output, or at that of the unit :attr:`error_at`.
        """

    @property
    def error_at(self) -> str | None:
        """The unit whose output's true gradient is the error; None for the output of the net."""
        return None

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, whose gradient is the rule's update where the units are cut apart."""
        broadcast = Broadcast(self.send)
        loss = self.run_units(batch, broadcast)
        if self.normalize_credit:
            broadcast.watch(loss)
        return loss, loss

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that each unit's output receives, of the output's shape (N, ...)."""
        leaves: list[Tensor] = []
        shapes: dict[str, Size] = {}

        def cut(value: Tensor, graphs: UnitGraphs) -> Tensor:
            shapes.update({name: output.shape for name, output in graphs.outputs.items()})
            leaves.append(value.detach().requires_grad_())
            return leaves[0]

        (error,) = torch.autograd.grad(self.run_units(batch, cut), leaves)
        credits = self.send(error, shapes, 1.0)
        return {f"net.{name}": credits.dense(name) for name in shapes}

    def run_units(self, batch: Any, pass_on: Callable[[Tensor, UnitGraphs], Tensor]) -> Tensor:
        """Run the net with its units cut apart.

        Args:
            batch: what the task takes.
            pass_on: called with the tensor whose gradient is the error, and what the units
                left behind; the net goes on with what it returns.

        Returns:
            The loss.
        """
        with (
            local_units(
                self.net,
                self.units,
                detach_inputs=self.stray != "train",
                recompute=self.recompute,
            ) as graphs,
            self._error_tapped(lambda value: pass_on(value, graphs)),
        ):
            output = self(*self.task.inputs(batch))
        missing = [name for name in self.units if name not in graphs.outputs]
        if missing:
            raise ValueError(
                f"units {choice(missing)} did not run in the forward pass. "
                "Take them out of `units`."
            )
        if self.chained and list(graphs.outputs) != self.units:
            raise ValueError(
                f"`units` are {self.units}, but they ran in another order. "
                f"Give them in forward order: {list(graphs.outputs)}."
            )
        if self.error_at is None:
            output = pass_on(output, graphs)
        return self.task.loss(output, batch)

    @contextmanager
    def _error_tapped(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        if self.error_at is None:
            yield
            return

        def hook(_: nn.Module, __: Any, result: Any) -> Any:
            tensor = first_tensor(result)  # a tensor: `local_units` has checked
            # A copy, because what follows may work in place.
            return result if tensor is None else replace_first(result, change(tensor).clone())

        with self.net.get_submodule(self.error_at).register_forward_hook(hook):
            yield

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
