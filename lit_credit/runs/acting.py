"""Callbacks and Trainer options that change a run's numbers, and so belong to its experiment.

Classes of lit_credit and of Lightning are known by their import paths, so that reading a
configuration imports neither.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ACTING_OPTIONS", "acting_callbacks", "acts_by_path", "own_options"]

ACTING_OPTIONS: Mapping[str, Any] = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "limit_test_batches": None,
    "limit_val_batches": None,
    "min_epochs": None,
    "min_steps": None,
    "overfit_batches": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "sync_batchnorm": False,
}
"""Options of the Trainer that change training or its metrics, with the values that do not."""
_OURS = {"FiniteGuard", "FrozenParameters", "PartFreezing", "StagedTraining"}
"""Callbacks of lit_credit that act on training; all others watch."""
_WATCHING = {
    *("BasePredictionWriter", "Checkpoint", "DeviceStatsMonitor", "LearningRateMonitor"),
    *("ModelCheckpoint", "ModelSummary", "OnExceptionCheckpoint", "ProgressBar"),
    *("RichModelSummary", "RichProgressBar", "SpikeDetection", "ThroughputMonitor"),
    *("Timer", "TQDMProgressBar"),
}
"""Callbacks of Lightning that watch; all others act on training."""
_LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}


def acts_by_path(path: str) -> bool | None:
    """Whether a callback acts on training, by its import path.

    None for a class that is neither of lit_credit nor of Lightning: its path does not tell.

    Example:
        >>> acts_by_path("lit_credit.callbacks.PartFreezing")
        True
        >>> acts_by_path("lightning.pytorch.callbacks.ModelCheckpoint")
        False
        >>> acts_by_path("mine.Callback") is None
        True
    """
    package, name = path.partition(".")[0], path.rpartition(".")[2]
    if package == "lit_credit":
        return name in _OURS
    return name not in _WATCHING if package in _LIGHTNING else None


def acting_callbacks(
    callbacks: Any, acts: Callable[[str], bool | None] = acts_by_path
) -> dict[str, Any]:
    """The callbacks that act on training, by the name of their class, a second one as ``NAME_2``.

    Args:
        callbacks: ``trainer.callbacks`` of a configuration: one, a list, or None.
        acts: maps an import path to whether the class acts; None counts as acting.

    Example:
        >>> saving = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
        >>> stopping = {"class_path": "lightning.pytorch.callbacks.EarlyStopping"}
        >>> list(acting_callbacks([saving, stopping]))
        ['EarlyStopping']
    """
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    nodes = [{"class_path": node} if isinstance(node, str) else node for node in listed]
    kept = [node for node in nodes if _acts(node, acts)]
    found: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for node in sorted(kept, key=lambda node: json.dumps(node, default=str)):
        name = node["class_path"].rpartition(".")[2]
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}_{seen[name]}"] = node
    return found


def _acts(node: Any, acts: Callable[[str], bool | None]) -> bool:
    path = node.get("class_path") if isinstance(node, dict) else None
    if not isinstance(path, str) or acts(path) is False:
        return False
    if path.startswith("lit_credit.") and path.endswith(".FiniteGuard"):
        # The other policies leave every update as it is.
        return (node.get("init_args") or {}).get("policy") == "skip"
    return True


def own_options(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options in :data:`ACTING_OPTIONS` that change training or its metrics in a run.

    Example:
        >>> own_options({"overfit_batches": 0.0, "accumulate_grad_batches": 4})
        {'accumulate_grad_batches': 4}
    """
    return {
        key: value
        for key, usual in ACTING_OPTIONS.items()
        if (value := trainer.get(key)) is not None
        and value != usual
        and not (key.startswith("limit_") and isinstance(value, float) and value == 1)  # all
    }
