"""Training parts of a net one after another."""

from collections.abc import Mapping

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_credit.callbacks.training.frozen_parameters import FrozenParameters, parameters_of
from lit_credit.trainer.trainer import is_fast_dev_run
from lit_credit.utils.ranges import check_range

__all__ = ["StagedTraining"]


class StagedTraining(FrozenParameters):
    """Train named parts of a net one after another, and prove that the others stayed.

    In stage s only ``stages[s]`` learns. All other parameters are frozen with
    ``requires_grad=False``, and compared at the end of every epoch, bit by bit, with their values
    when they were frozen. Gradients still pass through frozen parts. Buffers, such as the running
    means of a BatchNorm, are not frozen. The last stage lasts until the fit ends. A part that is in
    no stage never learns. A part may be in several stages; its optimizer state is kept in between.
    The learning rate follows its schedule in every stage; torch's ``CosineAnnealingWarmRestarts``
    restarts it with every stage. A warning tells if ``max_epochs`` ends before the last stage.

    Costs a copy of the frozen parameters, and one comparison per epoch.

    Args:
        stages: for each stage the names or patterns of what learns: submodules with all their
            contents, or parameters, such as ``[["embed", "head"], ["blocks.0.attention.1"]]``; as
            names of the module or of its ``net``.
        epochs_per_stage: epochs of each stage but the last.

    Raises:
        ValueError: if a stage has nothing to learn, if a pattern in it matches nothing or matches a
            name twice, or if ``epochs_per_stage`` is below 1.
        MisconfigurationException: if there are several stages on several devices, which would not
            average the gradients of parts that were frozen at the start.
        RuntimeError: if a frozen parameter has changed.

    Example::

        stages = [["embed", "head"], ["blocks.0"], ["blocks.1"]]
        trainer = Trainer(max_epochs=30, callbacks=[StagedTraining(stages, epochs_per_stage=10)])
    """

    def __init__(self, stages: list[list[str]], epochs_per_stage: int = 1) -> None:
        super().__init__()
        if (
            isinstance(stages, str)
            or not stages
            or any(isinstance(s, str) or not s for s in stages)
        ):
            raise ValueError(
                f"`stages` is {stages!r}, expected a list of lists of names or patterns, such as "
                "[['embed', 'head'], ['blocks.*']]."
            )
        check_range(1, epochs_per_stage=epochs_per_stage)
        self.stages = stages
        self.epochs_per_stage = epochs_per_stage
        self._learning: list[set[int]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parts; freeze those that never learn, before an optimizer is made."""
        if stage != "fit":
            return
        if len(self.stages) > 1 and trainer.world_size > 1:
            raise MisconfigurationException(
                f"StagedTraining has {len(self.stages)} stages on {trainer.world_size} devices, "
                "whose gradients of what was frozen at the start are not averaged. Use one device."
            )
        self._warn_of_stages_not_reached(trainer)
        # Parameters that others froze stay frozen. Duplicates: a tied weight has several names.
        named = pl_module.named_parameters(remove_duplicate=False)
        parts = {name: p for name, p in named if p.requires_grad}
        self._learning = []
        for index, patterns in enumerate(self.stages):
            found = parameters_of(pl_module, patterns, f"stages[{index}]").values()
            self._learning.append({id(p) for p in found if p.requires_grad})
            if not self._learning[-1]:
                raise ValueError(
                    f"`stages[{index}]` is {patterns}, whose parameters are all frozen elsewhere."
                )
        self._parts = parts
        ever = set().union(*self._learning)
        for parameter in parts.values():
            parameter.requires_grad_(id(parameter) in ever)

    def _warn_of_stages_not_reached(self, trainer: Trainer) -> None:
        first, limit = (len(self.stages) - 1) * self.epochs_per_stage, trainer.max_epochs
        if limit is not None and 0 <= limit <= first and not is_fast_dev_run(trainer):
            rank_zero_warn(
                f"StagedTraining: `max_epochs` is {limit}, but the last of {len(self.stages)} "
                f"stages of {self.epochs_per_stage} epochs begins after {first}, and will not "
                "learn. Raise it, or lower `epochs_per_stage`."
            )

    def frozen_in(self, epoch: int) -> Mapping[str, nn.Parameter]:
        """All parameters but those of the epoch's stage."""
        learning = self._learning[min(epoch // self.epochs_per_stage, len(self.stages) - 1)]
        return {name: p for name, p in self._parts.items() if id(p) not in learning}
