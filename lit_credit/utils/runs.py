"""Run folders: what was run, and what it measured."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_credit.utils.history import Row, read_history

__all__ = ["HISTORIES", "Run", "find_runs", "read_run"]

HISTORIES = ("metrics", "residual_norms", "gradient_norms", "credit_alignment", "circuit_matching")
"""The histories that a comparison reads, by the names of their files."""

# What may differ between two runs that are still seeds of one experiment: where files lie, how
# they are read, and every seed.
_PLACES = {"root", "download", "num_workers"}
_TRAINER = ("max_epochs", "max_steps", "limit_train_batches", "precision")


@dataclass(frozen=True)
class Run:
    """One training run, read from its folder."""

    folder: Path
    rule: str
    seed: int | None
    seeds: str
    """All seeds of the configuration: two runs with the same ones are the same run."""
    experiment: str
    """Rule, model, data and length of training, without seeds and paths; equal for seeds of one."""
    setting: str
    """Net, data and length of training: what a rule shares with its baseline."""
    subject: str
    """Net and data in words."""
    max_epochs: int | None
    max_steps: int
    """Optimizer steps after which training ends, -1 for any number."""
    histories: dict[str, list[Row]]

    @property
    def last_epoch(self) -> int:
        """The last epoch at which anything was measured."""
        return max(int(row["epoch"]) for rows in self.histories.values() for row in rows)

    @property
    def unfinished(self) -> bool:
        """Whether it stopped before its configured number of epochs, or of steps."""
        if self.max_epochs is None or self.last_epoch >= self.max_epochs:
            return False
        last_step = max(int(row["step"]) for rows in self.histories.values() for row in rows)
        return self.max_epochs >= 0 and not 0 <= self.max_steps <= last_step


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Folders with a ``config.yaml`` and a history, among ``paths`` and anywhere below them.

    Args:
        paths: run folders, or folders that contain some.

    Returns:
        Each run folder once, in the order of the arguments, sorted below each.

    Raises:
        ValueError: if a path is not a folder, or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise ValueError(
                f"RUN: no folder {str(path)!r}. Give folders that runs were written to."
            )
        folders = [config.parent for config in sorted(path.rglob("config.yaml"))]
        runs = [folder for folder in folders if any(_history_files(folder))]
        if not runs:
            names = ", ".join(f"{name}.jsonl" for name in HISTORIES)
            raise ValueError(
                f"RUN: no run in {str(path)!r}: nowhere below it is a folder with config.yaml and "
                f"one of {names}. Give a folder that `lit-credit fit` wrote to."
            )
        for folder in runs:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: with ``config.yaml``, the full configuration of a LightningCLI, and histories.

    Raises:
        ValueError: if the configuration does not name the rule, or a history has no rows.
    """
    config = _read_config(folder / "config.yaml")
    model, data, trainer = (config.get(key) or {} for key in ("model", "data", "trainer"))
    rule = model["class_path"].rpartition(".")[2]
    length = {key: trainer.get(key) for key in _TRAINER}
    net = (model.get("init_args") or {}).get("net")
    seeds = [("seed_everything", config.get("seed_everything")), *_seeds((model, data))]
    seed = config.get("seed_everything")
    return Run(
        folder=folder,
        rule=rule,
        seed=seed if type(seed) is int else None,
        seeds=json.dumps(seeds, default=str),
        experiment=json.dumps(_without_seeds((model, data, length)), default=str),
        setting=json.dumps(_without_seeds((net, data, length)), default=str),
        subject=f"{_class_name(net)} on {_class_name(data)}",
        max_epochs=trainer.get("max_epochs"),
        max_steps=trainer.get("max_steps", -1),
        histories={path.stem: _read_rows(path) for path in _history_files(folder)},
    )


def _history_files(folder: Path) -> Iterator[Path]:
    return (path for name in HISTORIES if (path := folder / f"{name}.jsonl").is_file())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(config["model"]["class_path"], str):
            return dict(config)
    except (yaml.YAMLError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{path}: expected the configuration of a run, with a class at `model.class_path`. "
        "Restore the file, or leave this folder out."
    )


def _read_rows(path: Path) -> list[Row]:
    rows = read_history(path)
    if not rows:
        raise ValueError(f"{path}: no rows. Remove the file, or leave this run out.")
    return rows


def _class_name(node: Any) -> str:
    path = node.get("class_path") if isinstance(node, dict) else None
    return str(path).rpartition(".")[2] if path else "net"


def _is_seed(key: str) -> bool:
    return key == "seed" or key.endswith("_seed")


def _without_seeds(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {k: v for k, v in node.items() if not _is_seed(str(k)) and k not in _PLACES}
        return {key: _without_seeds(kept[key]) for key in sorted(kept, key=str)}
    if isinstance(node, list | tuple):
        return [_without_seeds(item) for item in node]
    return node


def _seeds(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            if _is_seed(str(key)):
                yield f"{at}.{key}", value
            else:
                yield from _seeds(value, f"{at}.{key}")
