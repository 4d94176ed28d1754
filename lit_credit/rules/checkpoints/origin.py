"""The origin of a checkpoint, and the error texts for one that does not fit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

import lit_credit
from lit_credit.utils.private_names import CLASS_PATH

ENTRY = "lit_credit"

__all__ = ["ENTRY", "Origin", "is_newer", "misfits", "origin_of", "other_rule", "refusal"]


class Origin(NamedTuple):
    """Version, rule and net that saved a checkpoint; None where it does not say."""

    version: str | None = None
    rule: str | None = None
    net: str | None = None


def origin_of(checkpoint: Mapping[str, Any]) -> Origin:
    """Read the origin from a checkpoint."""
    entry = checkpoint.get(ENTRY)
    if isinstance(entry, Mapping):
        return Origin(*(entry.get(field) for field in Origin._fields))
    # Up to version 0.1 a checkpoint names its rule only if the command line wrote it.
    configured = checkpoint.get("hyper_parameters", {})
    path = configured.get(CLASS_PATH) if isinstance(configured, Mapping) else None
    return Origin(rule=path.rpartition(".")[2] if isinstance(path, str) else None)


def other_rule(origin: Origin, kind: type) -> str:
    """The error text for a checkpoint of another rule."""
    return (
        f"the checkpoint is of the rule {origin.rule}, and this is {kind.__name__}. Run "
        f"{origin.rule}, or take what fits of its weights by `load_state_dict(..., strict=False)`."
    )


def misfits(own: Mapping[str, Any], given: Mapping[str, Any], strict: bool) -> list[str]:
    """The tensors that do not fit, as one part of a sentence for each kind of misfit."""
    shapes = [(name, _shape(given[name]), _shape(own[name])) for name in own if name in given]
    other = [f"`{n}`, {there} in the checkpoint and {here} here" for n, there, here in shapes]
    other = [text for text, (_, there, here) in zip(other, shapes, strict=True) if there != here]
    missing = [f"`{name}`" for name in own if name not in given and strict]
    unexpected = [f"`{name}`" for name in given if name not in own and strict]
    kinds = (("of another shape", other), ("missing", missing), ("unexpected", unexpected))
    return [f"{len(found)} {kind} (first {found[0]})" for kind, found in kinds if found]


def refusal(module: Any, origin: Origin, misfits: list[str]) -> str:
    """The error text for a checkpoint whose tensors do not fit the net of a module."""
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


def is_newer(version: str | None) -> bool:
    """Whether a version is newer than this one."""
    own = _numbers(lit_credit.__version__)
    return version is not None and _numbers(version) > own


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
