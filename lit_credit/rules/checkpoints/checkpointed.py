"""Saving and validating a rule's checkpoints."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Optimizer
from typing_extensions import Self

import lit_credit
from lit_credit.former_names import named_by_a_file
from lit_credit.rules.checkpoints.described import (
    configuration,
    describe_groups,
    describe_scheduler,
)
from lit_credit.rules.checkpoints.origin import (
    ENTRY,
    Origin,
    is_newer,
    misfits,
    origin_of,
    other_rule,
    refusal,
)
from lit_credit.rules.checkpoints.resume import reconcile
from lit_credit.rules.evaluation.weight_modes import WeightModes
from lit_credit.rules.schedule_checks import check_length
from lit_credit.runs.checkpoint_io import check_is_of_lightning, read_checkpoint
from lit_credit.runs.trusted_classes import check_code
from lit_credit.trainer.curves_again import continue_curves, flush_curves
from lit_credit.utils.both_packages import LightningModule
from lit_credit.utils.paths import local_path
from lit_credit.utils.private_names import of_the_class_alone, trainer_of
from lit_credit.utils.random_state import random_state

__all__ = ["CheckpointedRule"]


class CheckpointedRule(LightningModule):
    """Saves and loads a rule.

    A checkpoint contains ``lit_credit: {version, rule, net}`` and the random states. A checkpoint
    of another rule, or of a net with other tensors, is refused in one sentence. A subclass also
    loads checkpoints of the rules that it is derived from. ``strict=False``, or
    ``strict_loading = False`` of the module, loads what fits from any rule.
    """

    net: nn.Module
    on_resume: str = "refuse"
    """Which values a resumed run takes if the configuration differs from the checkpoint's.

    ``refuse`` raises ValueError; ``configured`` takes the new values, ``checkpoint`` the old ones.
    """
    run_configuration: Mapping[str, Any] = MappingProxyType({})
    """What the command line adds to the configuration in checkpoints."""
    _configuration: dict[str, Any] | None = None
    _resumed: dict[str, Any] | None = None
    _origin: Origin | None = None
    loaded_random_state: dict[str, Any] | None = None
    _left_off: tuple[float | None, int] | None = None
    """When the checkpoint of a resumed run was saved, and at which step."""
    _modes = WeightModes()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of rule and net, and the random states; Lightning saves neither."""
        origin = Origin(lit_credit.__version__, type(self).__name__, type(self.net).__name__)
        checkpoint[ENTRY] = {**origin._asdict(), "saved_at": time.time()}
        if (trainer := trainer_of(self)) is not None:
            flush_curves(trainer)
        checkpoint["random_state"] = random_state()
        if self._configuration is not None:
            checkpoint["configuration"] = self._configuration
        self._modes.save(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts; merely loading must not set them.

        Raises:
            ValueError: if training is to continue from weights alone, or the checkpoint names code
                that does not belong to a rule.
        """
        check_code(
            checkpoint.get("hyper_parameters") or {},
            CheckpointedRule,
            getattr(trainer_of(self), "ckpt_path", None) or "the checkpoint",
            parsed=False,
        )
        trainer = trainer_of(self)
        fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        if fits and "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights and no state of an optimizer, so no training can go "
                "on from it. `validate`, `test` and `predict` take it as `ckpt_path`; to train "
                "its weights anew, give the file as `--init_from`, or in Python load them by "
                "`load_from_checkpoint`, and fit without."
            )
        if fits:
            WeightModes.resume(checkpoint)
        self._resumed = checkpoint if fits else None
        entry = checkpoint.get(ENTRY)
        saved_at = entry.get("saved_at") if isinstance(entry, Mapping) else None
        self._left_off = (saved_at, checkpoint.get("global_step", 0)) if fits else None
        self.loaded_random_state = checkpoint.get("random_state")
        self._origin = origin_of(checkpoint)

    def compare_with_checkpoint(
        self, optimizer: Optimizer, groups: list[dict[str, Any]], scheduler: Any
    ) -> None:
        """Compare a run's configuration with its checkpoint, and its length with the scheduler's.

        Called before anything is restored or written.

        Args:
            optimizer: the configured optimizer.
            groups: the optimizer's groups, described before the scheduler was made.
            scheduler: the configured scheduler, or None.

        Raises:
            ValueError: if the configuration differs from the checkpoint's and ``on_resume`` does
                not say which to take, or if the scheduler ends before the run.
        """
        if trainer_of(self) is None:
            return
        described = None
        if scheduler is not None:
            described = describe_scheduler(scheduler, optimizer, groups)
        now = configuration(self, optimizer, groups, described)
        checkpoint, self._resumed = self._resumed, None
        if checkpoint is not None:
            now = reconcile(self, checkpoint, optimizer, scheduler, now)
        self._configuration = now
        check_length(self, scheduler)

    def continue_curves(self) -> None:
        """Make TensorBoard show each point of a resumed run only once."""
        if self._left_off is not None:
            continue_curves(self.trainer, *self._left_off)
            self._left_off = None

    def compare_if_not_done(self) -> None:
        """Compare at the start of a fit if a subclass has its own ``configure_optimizers``."""
        waits = self._resumed is not None or self._configuration is None
        if waits and len(self.trainer.optimizers) == 1:
            (optimizer,) = self.trainer.optimizers
            schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
            groups = describe_groups(optimizer.param_groups)
            self.compare_with_checkpoint(optimizer, groups, schedulers[0] if schedulers else None)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights.

        Raises:
            ValueError: if they belong to another net or, with ``strict``, to another rule.
        """
        origin, self._origin = self._origin or Origin(), None
        if strict and origin.rule not in (None, *_ancestors(type(self))):
            raise ValueError(other_rule(origin, type(self)))
        try:
            result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            found = misfits(self.state_dict(), state_dict, strict)
            if not found:
                raise
            raise ValueError(refusal(self, origin, found)) from error
        if is_newer(origin.version):
            rank_zero_warn(
                f"The checkpoint was saved by lit_credit {origin.version}, which is newer than "
                f"this, {lit_credit.__version__}. Its weights fit."
            )
        return result

    @of_the_class_alone
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the module and load its weights, as Lightning does; see its documentation.

        Raises:
            ValueError: if the file cannot be read, holds more than tensors and plain data (which
                ``weights_only=False`` allows), or does not fit.
        """
        if weights_only is not None:
            kwargs["weights_only"] = weights_only
        if isinstance(checkpoint_path, str | os.PathLike):
            checkpoint_path = local_path(checkpoint_path, "checkpoint_path")
        if weights_only is not False:
            checkpoint = _contents(checkpoint_path)
            check_is_of_lightning(checkpoint, checkpoint_path)
            # The arguments of another rule cannot build this one.
            origin = origin_of(checkpoint)
            if strict is not False and origin.rule not in (None, *_ancestors(cls), *_family(cls)):
                raise ValueError(other_rule(origin, cls))
            for arguments in _arguments(checkpoint, hparams_file):
                check_code(arguments, cls, hparams_file or checkpoint_path)
        with named_by_a_file():
            return super().load_from_checkpoint(
                checkpoint_path, map_location, hparams_file, strict, **kwargs
            )


def _contents(source: Any) -> dict[str, Any]:
    """The contents of a path or an open file; the position in an open file is restored."""
    if isinstance(source, str | os.PathLike):
        return read_checkpoint(os.fspath(source))
    start = source.tell()
    found: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    source.seek(start)
    return found


def _arguments(checkpoint: Mapping[str, Any], file: Any) -> Iterator[Mapping[str, Any]]:
    """All arguments from which Lightning may build a module."""
    for name in ("hparams", "module_arguments", "hyper_parameters"):
        if isinstance(found := checkpoint.get(name), Mapping):
            yield found
    if file is not None and str(file).endswith((".yaml", ".yml")):
        found = yaml.safe_load(Path(local_path(file, "hparams_file")).read_text(encoding="utf-8"))
        if isinstance(found, Mapping):
            yield found


def _ancestors(kind: type) -> list[str]:
    """Names of a class and of the rules that it is derived from."""
    return [base.__name__ for base in kind.__mro__ if issubclass(base, CheckpointedRule)]


def _family(kind: type[Any]) -> list[str]:
    """Names of a class and of all that are derived from it."""
    derived: list[type[Any]] = kind.__subclasses__()
    return [kind.__name__, *(name for sub in derived for name in _family(sub))]
