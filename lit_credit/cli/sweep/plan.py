"""The runs that a grid asks for, each with its full configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import Point, as_word

__all__ = ["asked_configuration", "planned"]

_QUIET = "--trainer.enable_progress_bar=false"


def planned(
    points: Sequence[Point], seeds: Sequence[int] | None, base: Sequence[str], folder: Path
) -> list[Cell]:
    """One cell per point and seed.

    Args:
        points: points of the grid.
        seeds: seeds of every point; None takes the seed in the configuration of the point.
        base: the words after ``lit-credit fit`` in every run, before the overrides of the point.
        folder: folder of the sweep; each cell has a folder below it.

    Raises:
        ValueError: if ``fit`` would refuse one of the configurations, naming the point.
    """
    cells = []
    for point in points:
        words = [_QUIET, *base, *(f"--{k}={as_word(v)}" for k, v in point.overrides.items())]
        try:
            config = asked_configuration(words)
        except ValueError as error:
            raise ValueError(f"cell {point.name}: {error}") from error
        for seed in seeds or [config["seed_everything"]]:
            name = f"{point.name}/seed_{seed}"
            cells.append(
                Cell(
                    name=name,
                    point=point,
                    seed=seed,
                    folder=folder / name,
                    words=[*words, f"--seed_everything={as_word(seed)}"],
                    asked=yaml.safe_dump({**config, "seed_everything": seed}, sort_keys=False),
                    cwd=Path.cwd(),
                )
            )
    return cells


def asked_configuration(words: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run in the form that is compared with an earlier sweep's.

    Args:
        words: the words after ``lit-credit fit``.

    Raises:
        ValueError: if ``fit`` refuses the words, with its reason in one line, or if they name no
            rule.
    """
    from lit_credit.cli.configuration import configuration_of  # it imports torch

    config = configuration_of(words)
    for name in ("on_resume", "init_from"):  # older sweeps do not have these options
        if config.get(name) is None:
            config.pop(name, None)
    if config.get("test_after_fit"):
        del config["test_after_fit"]
    if not config["model"]:
        raise ValueError("no rule. Name one in a --config, or in the grid: `model.class_path`.")
    return config
