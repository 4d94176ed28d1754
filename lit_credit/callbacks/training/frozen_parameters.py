"""The base class of callbacks that freeze parameters for some epochs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_credit.utils.both_packages import Callback
from lit_credit.utils.compiled import named_weights
from lit_credit.utils.names import matched_units, submodule_names
from lit_credit.utils.short_text import choice

__all__ = ["FROZEN", "FrozenParameters", "parameters_of"]

FROZEN = "frozen_parameters"
"""Entry of a checkpoint: names of all parameters that were frozen when it was saved."""


class FrozenParameters(Callback):
    """Freezes the parameters of :meth:`frozen_in`, epoch by epoch, and proves that they stayed.

    A frozen parameter has ``requires_grad=False`` and no gradient, so no optimizer changes it, even
    with momentum. At the end of every epoch and of the fit it is compared, bit by bit, with its
    value when it was frozen. After the fit ``requires_grad`` is restored.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[str, nn.Parameter] = {}
        """All parameters that this callback freezes at some time; ``setup`` fills it."""
        self._values: dict[str, Tensor] = {}
        """Values of the parameters that are frozen now, from when they were frozen."""

    @abstractmethod
    def frozen_in(self, epoch: int) -> Mapping[str, nn.Parameter]:
        """The parameters that do not learn in an epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze, even within an epoch if a run is resumed there."""
        # Not in `setup`, so that the optimizer includes parameters that will learn later.
        self._freeze(self.frozen_in(trainer.current_epoch))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze and unfreeze as the epoch requires."""
        self._freeze(self.frozen_in(trainer.current_epoch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that no frozen parameter has changed."""
        moved = [n for n, value in self._values.items() if not _same(value, self._parts[n])]
        if moved:
            raise RuntimeError(
                f"{type(self).__name__}: {choice(moved)} moved, although frozen, until step "
                f"{trainer.global_step}. Something writes to parameters without their gradients: "
                "another callback, a weight averaging, or a constraint."
            )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save which parameters are frozen, for a diagnosis of the checkpoint."""
        named = named_weights(pl_module)
        checkpoint[FROZEN] = [name for name, p in named.items() if not p.requires_grad]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check a fit that ended within an epoch."""
        self.on_train_epoch_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the module as it was."""
        self._release()

    def _freeze(self, frozen: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in self._parts.items():
            if name not in frozen:
                parameter.requires_grad_(True)
                self._values.pop(name, None)
            elif name not in self._values:
                parameter.requires_grad_(False)
                parameter.grad = None
                self._values[name] = parameter.detach().clone()

    def _release(self) -> None:
        for parameter in self._parts.values():
            parameter.requires_grad_(True)
        self._parts, self._values = {}, {}


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether all entries are equal, NaN included: a run that diverged may have frozen NaN."""
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def parameters_of(
    module: nn.Module, patterns: Sequence[str], argument: str
) -> dict[str, nn.Parameter]:
    """All parameters that the patterns name, or that are in a submodule that they name.

    Args:
        module: the module.
        patterns: names or patterns, as names of the module or of its ``net``.
        argument: name of the argument that they come from, for the error.

    Raises:
        ValueError: if a pattern matches nothing or matches a name twice, or if there are no
            parameters.
    """
    # With duplicates, so that a tied weight is found by both of its names.
    parameters = named_weights(module)
    found: dict[str, nn.Parameter] = {}
    for part in matched_units(patterns, [*submodule_names(module), *parameters], argument):
        found |= {n: p for n, p in parameters.items() if n == part or n.startswith(f"{part}.")}
    if not found:
        raise ValueError(f"`{argument}` is {choice(patterns)}, in which there are no parameters.")
    return found
