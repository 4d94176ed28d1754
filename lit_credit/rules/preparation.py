"""Rules that run a batch before they train: to learn shapes, or to compile."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from lit_credit.feedback.entry import Cut, Entry
from lit_credit.feedback.units import UnitGraphs
from lit_credit.inspect.probe.training_batch import training_batch
from lit_credit.inspect.state.guard import held
from lit_credit.rules.base import CreditRule
from lit_credit.rules.first_batch import explaining
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.compiled import eager
from lit_credit.utils.nested import map_tensors
from lit_credit.utils.random_state import preserved_rng
from lit_credit.utils.short_text import choice

__all__ = ["PreparedRule"]


class PreparedRule(CreditRule):
    """A rule with parameters or matrices whose shapes depend on the outputs of its units."""

    is_built = False
    """Whether :meth:`build` has made the parameters."""
    _is_rehearsed = False  # whether a batch has run eagerly before compilation

    @abstractmethod
    def run_units(self, batch: Any, error: Entry | None = None) -> tuple[Tensor, UnitGraphs]:
        """Run the net with its units cut apart; return the loss and the units' graphs."""

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

    def setup(self, stage: str) -> None:
        """Run one batch before a training whose parameters depend on the units' outputs."""
        super().setup(stage)
        if stage == "fit" and self.builds and not self.is_built:
            batch = training_batch(self.trainer, self)
            with explaining(batch, self, set(), "training"):
                self.prepare(batch)
            for callback in callbacks_of(self.trainer):
                if is_a(callback, WeightAveraging):  # it has copied the rule without them
                    callback.setup(self.trainer, self, stage)

    def prepare(self, batch: Any) -> None:
        """Make the parameters whose shapes depend on the units' outputs, from one batch.

        A Trainer's ``fit`` does this by itself; call it where the rule is trained without one. The
        batch runs in eval mode, without gradients, and leaves nothing behind.

        Raises:
            ValueError: if a unit does not run on the batch.
        """
        outputs, output = self._outputs(batch)
        if output.dim() < 2:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected (N, C) or more dimensions. "
                "Let the net return (N, 1) where each sample has one number."
            )
        self.build(outputs, output)
        self.is_built = True

    def draw(self, outputs: Mapping[str, Tensor], output: Tensor, batch: Any) -> None:
        """Draw what is drawn at its first use, since compiled code cannot; by default nothing.

        Args:
            outputs: output of each unit, by the name of the unit.
            output: the tensor whose gradient is the error.
            batch: what the task takes.
        """

    def rehearse(self, batch: Any) -> None:
        """Run a training batch eagerly once before it is compiled: compiled code checks nothing."""
        self.draw(*self._outputs(batch), batch)
        with held(self), preserved_rng(), eager(), torch.enable_grad():
            self.surrogate(batch)
        self._is_rehearsed = True

    def _outputs(self, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs of the units in eval mode, and the tensor whose gradient is the error."""
        # In `setup` a Trainer has converted the batch to its precision, but not yet the net.
        dtype = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), None)
        batch = map_tensors(batch, lambda t: t.to(dtype) if t.is_floating_point() else t)
        with held(self), preserved_rng(), torch.no_grad():
            self.eval()
            cut = Cut()
            _, graphs = self.run_units(batch, cut)
        idle = [name for name in self.units if name not in graphs.outputs]
        if idle:
            remedy = "" if self.compile_options is None else " or leave `compile` out"
            raise ValueError(
                f"units {choice(idle)} do not run on the first batch in eval mode, so the shapes "
                f"of their outputs are not known. Take them out of `units`{remedy}."
            )
        return {n: v.detach() for n, v in graphs.outputs.items()}, cut.leaf.detach()
