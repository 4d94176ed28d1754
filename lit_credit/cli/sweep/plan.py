"""The runs that a grid asks for, each with its full configuration."""

import gc
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import Point, as_word

__all__ = ["asked_configuration", "planned"]

_QUIET = "--trainer.enable_progress_bar=false"


def planned(
    points: Sequence[Point],
    seeds: Sequence[int] | None,
    base: Sequence[str],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cell]:
    """One cell per point and seed.

    Args:
        points: points of the grid.
        seeds: seeds of every point; None takes the seed in the configuration of the point.
        base: the words after ``lit-credit fit`` in every run, before the overrides of the point.
        folder: folder of the sweep; each cell has a folder below it.
        progress: called with the number of planned points and the number of all points.

    Raises:
        ValueError: if ``fit`` would refuse one of the configurations, naming the point.
    """
    import lit_credit.cli.configuration  # noqa: F401, torch is loaded here, late

    cells = []
    for number, point in enumerate(_without_collecting(points)):
        if progress is not None:
            progress(number, len(points))
        words = [_QUIET, *base, *(f"--{k}={as_word(v)}" for k, v in point.overrides.items())]
        try:
            config, read = _read(words)
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
                    read=read,
                )
            )
    return cells


def _without_collecting(points: Sequence[Point]) -> Iterator[Point]:
    """Yield the points while garbage collection skips all modules loaded so far.

    To look through torch and Lightning again and again would take longer than to read the words.
    """
    own = gc.get_freeze_count() == 0
    gc.freeze()
    try:
        yield from points
    finally:
        if own:
            gc.unfreeze()


def asked_configuration(words: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run in the form that is compared with an earlier sweep's.

    Args:
        words: the words after ``lit-credit fit``.

    Raises:
        ValueError: if ``fit`` refuses the words, with its reason in one line, or if they name no
            rule.
    """
    return _read(words)[0]


def _read(words: Sequence[str]) -> tuple[dict[str, Any], bytes | None]:
    """The configuration in that form, and what was read, for the runs: they need not read again."""
    from lit_credit.cli.configuration import read_words  # it imports torch

    read = read_words(words)
    config = read.configuration
    for name in ("on_resume", "init_from"):  # older sweeps do not have these options
        if config.get(name) is None:
            config.pop(name, None)
    if config.get("test_after_fit"):
        del config["test_after_fit"]
    try:
        return config, pickle.dumps(read)
    except Exception:  # a value of a person's own class; the runs then read the words
        return config, None
