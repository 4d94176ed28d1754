"""What a rule writes into its checkpoints, and asks of those that it is given."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod
from torch import nn
from typing_extensions import Self

import lit_credit
from lit_credit.utils.checkpoint_io import read_checkpoint
from lit_credit.utils.random_state import random_state

__all__ = ["CheckpointedRule"]

_ENTRY = "lit_credit"


class Origin(NamedTuple):
    """What a checkpoint tells of the module that saved it; None where it does not."""

    version: str | None = None
    rule: str | None = None
    net: str | None = None


class CheckpointedRule(LightningModule):
    """The loading and saving of a rule.

    A checkpoint has ``lit_credit: {version, rule, net}`` and the random states in it. One of
    another rule, or of a net of other tensors, is refused in one sentence; a subclass takes those
    of the rule that it is derived from. ``strict=False``, or
    ``strict_loading = False`` of the module, loads what fits, whatever the rule.
    """

    net: nn.Module
    _origin: Origin | None = None
    _loaded_random_state: dict[str, Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save where it comes from, and the random states, which Lightning does not."""
        origin = Origin(lit_credit.__version__, type(self).__name__, type(self.net).__name__)
        checkpoint[_ENTRY] = origin._asdict()
        checkpoint["random_state"] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until training starts; merely loading must not set them.

        Raises:
            ValueError: if training is to go on from weights alone.
        """
        fits = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        if fits and "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights and no state of an optimizer, so no training can go "
                "on from it. `validate`, `test` and `predict` take it as `ckpt_path`; to train "
                "its weights anew, load them in Python by `load_from_checkpoint`, and fit without."
            )
        self._loaded_random_state = checkpoint.get("random_state")
        self._origin = _origin_of(checkpoint)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights.

        Raises:
            ValueError: if they are of another net, or, with ``strict``, of another rule.
        """
        origin, self._origin = self._origin or Origin(), None
        if strict and origin.rule not in (None, *_ancestors(type(self))):
            raise ValueError(_other_rule(origin, type(self)))
        try:
            result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            misfits = _misfits(self.state_dict(), state_dict, strict)
            if not misfits:
                raise
            raise ValueError(_refusal(self, origin, misfits)) from error
        if _is_newer(origin.version):
            rank_zero_warn(
                f"The checkpoint was saved by lit_credit {origin.version}, which is newer than "
                f"this, {lit_credit.__version__}. Its weights fit."
            )
        return result

    @_restricted_classmethod
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
        if weights_only is not False and isinstance(checkpoint_path, str | os.PathLike):
            # Lightning 2.4 would read anything. And the arguments of another rule are no arguments.
            origin = _origin_of(read_checkpoint(os.fspath(checkpoint_path)))
            if strict is not False and origin.rule not in (None, *_ancestors(cls), *_family(cls)):
                raise ValueError(_other_rule(origin, cls))
        return super().load_from_checkpoint(
            checkpoint_path, map_location, hparams_file, strict, **kwargs
        )


def _origin_of(checkpoint: Mapping[str, Any]) -> Origin:
    entry = checkpoint.get(_ENTRY)
    if isinstance(entry, Mapping):
        return Origin(*(entry.get(field) for field in Origin._fields))
    # One of version 0.1 or before says so only if the command line wrote it.
    configured = checkpoint.get("hyper_parameters", {})
    path = configured.get("_class_path") if isinstance(configured, Mapping) else None
    return Origin(rule=path.rpartition(".")[2] if isinstance(path, str) else None)


def _ancestors(kind: type) -> list[str]:
    """Names of a class and of the rules that it is derived from."""
    return [base.__name__ for base in kind.__mro__ if issubclass(base, CheckpointedRule)]


def _family(kind: type[Any]) -> list[str]:
    """Names of a class and of all that are derived from it."""
    derived: list[type[Any]] = kind.__subclasses__()
    return [kind.__name__, *(name for sub in derived for name in _family(sub))]


def _other_rule(origin: Origin, kind: type) -> str:
    return (
        f"the checkpoint is of the rule {origin.rule}, and this is {kind.__name__}. Run "
        f"{origin.rule}, or take what fits of its weights by `load_state_dict(..., strict=False)`."
    )


def _misfits(own: Mapping[str, Any], given: Mapping[str, Any], strict: bool) -> list[str]:
    """What does not fit, a part of a sentence each."""
    shapes = [(name, _shape(given[name]), _shape(own[name])) for name in own if name in given]
    other = [f"`{n}`, {there} in the checkpoint and {here} here" for n, there, here in shapes]
    other = [text for text, (_, there, here) in zip(other, shapes, strict=True) if there != here]
    missing = [f"`{name}`" for name in own if name not in given and strict]
    unexpected = [f"`{name}`" for name in given if name not in own and strict]
    kinds = (("of another shape", other), ("missing", missing), ("unexpected", unexpected))
    return [f"{len(found)} {kind} (first {found[0]})" for kind, found in kinds if found]


def _refusal(module: CheckpointedRule, origin: Origin, misfits: list[str]) -> str:
    net = f" of {origin.net}" if origin.net else ""
    version = origin.version or "0.1 or older"
    return (
        f"the checkpoint{net} does not fit {type(module.net).__name__}: tensors "
        f"{', '.join(misfits)}. It was saved by lit_credit {version}, this is "
        f"{lit_credit.__version__}. Build the net with the arguments that it was saved with: "
        "`config.yaml` of its run has them."
    )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _is_newer(version: str | None) -> bool:
    own = _numbers(lit_credit.__version__)
    return version is not None and _numbers(version) > own


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
