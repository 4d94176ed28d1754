"""Rules under which no gradient passes from one unit to another."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from lit_credit.feedback.credit import inject_credit
from lit_credit.feedback.units import (
    check_coverage,
    check_recompute,
    local_units,
    stray_parameters,
)
from lit_credit.rules.base import CreditRule
from lit_credit.utils.names import submodule_names

__all__ = ["LocalRule"]


class LocalRule(CreditRule):
    """A rule that hands each unit a credit signal at its output, and the readout the true gradient.

    The scalar is ``loss(readout on the detached last state) + sum_l <f_l, stopgrad(a_l)>``, with
    f_l the output of unit l on detached inputs and a_l its credit.

    Args:
        *args: see :class:`lit_credit.rules.CreditRule`.
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

    def __init__(
        self,
        *args: Any,
        stray: Literal["error", "freeze", "train"] = "error",
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.stray = stray
        self.recompute = recompute
        self._check_units()
        if recompute:
            check_recompute(self.net, self.units)

    @abstractmethod
    def unit_credits(self, batch: Any) -> tuple[Tensor, dict[str, Tensor], Mapping[str, Tensor]]:
        """Run the net with its units cut apart: the loss, units' outputs, and their credits."""

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and itself plus the units' local scalars."""
        loss, outputs, credits = self.unit_credits(batch)
        trainable = [name for name, output in outputs.items() if output.requires_grad]
        if not trainable:
            return loss, loss
        scalar = inject_credit(
            [outputs[name] for name in trainable], [credits[name] for name in trainable]
        )
        return loss, loss + scalar

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit that each unit's output receives, of the output's shape (N, ...)."""
        _, outputs, credits = self.unit_credits(batch)
        return {f"net.{name}": credits[name] for name in outputs}

    def run_units(self, batch: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss, the net's output, and each unit's output in its own graph."""
        with local_units(
            self.net,
            self.units,
            detach_inputs=self.stray != "train",
            recompute=self.recompute,
        ) as outputs:
            output = self(*self.task.inputs(batch))
        missing = [name for name in self.units if name not in outputs]
        if missing:
            raise ValueError(
                f"units {', '.join(missing)} did not run in the forward pass. "
                "Take them out of `units`."
            )
        return self.task.loss(output, batch), output, outputs

    def _check_units(self) -> None:
        if not self.units:
            raise ValueError(
                f"`units` is not given, and {type(self.net).__name__} declares no `credit_units`. "
                f"Choose from: {', '.join(submodule_names(self.net))}."
            )
        if any(
            hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
            for module in self.net.modules()
        ):
            raise ValueError(
                f"`net` is compiled, but {type(self).__name__} cuts the graph at the units' "
                "borders, inside of what torch.compile has fused. Pass the net uncompiled."
            )
        if self.stray == "freeze":
            stray = set(stray_parameters(self.net, [*self.units, *self.readout]))
            for name, parameter in self.net.named_parameters():
                if name in stray:
                    parameter.requires_grad_(False)
        if self.stray != "train":
            check_coverage(self.net, self.units, self.readout)
