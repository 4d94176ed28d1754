"""The runs that a grid asks for, each with its full configuration."""

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_credit.cli.loading import say_loading
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import Point, as_word, leaf_options
from lit_credit.cli.sweep.own_code import SourceFiles

__all__ = ["asked_configuration", "planned"]

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
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
    with say_loading():
        from lit_credit.cli.sweep.handed import as_text  # these import torch
        from lit_credit.cli.sweep.reading import PointReader

    varied = _varied(points)
    reader = PointReader([_QUIET, *base])
    sources = SourceFiles()
    cells = []
    for number, point in enumerate(_without_collecting(points)):
        if progress is not None:
            progress(number, len(points))
        try:
            read = reader.read(point)
        except ValueError as error:
            raise ValueError(f"cell {point.name}: {error}") from error
        config, text = _comparable(read.configuration), as_text(read)
        code = sources.of(config)
        for seed in seeds or [config["seed_everything"]]:
            name = f"{point.name}/seed_{seed}"
            cells.append(
                Cell(
                    name=name,
                    point=point,
                    seed=seed,
                    folder=folder / name,
                    words=[*reader.words(point), f"--seed_everything={as_word(seed)}"],
                    asked=_text({**config, "seed_everything": seed}),
                    cwd=Path.cwd(),
                    varied=varied,
                    read=text,
                    code=code,
                )
            )
    return cells


def _varied(points: Sequence[Point]) -> tuple[str, ...]:
    """The options that vary; of a mapping, such as a class with arguments, what varies in it."""
    given = [leaf_options(point.overrides) for point in points]
    values: dict[str, set[str]] = {}
    for options in given:
        for key, value in options.items():
            values.setdefault(key, set()).add(as_word(value))
    everywhere = set.intersection(*map(set, given)) if given else set()
    return tuple(k for k, found in values.items() if len(found) > 1 or k not in everywhere)


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
        ValueError: if ``fit`` refuses the words, with its reason in one line.
    """
    from lit_credit.cli.configuration import configuration_of  # it imports torch

    return _comparable(configuration_of(words))


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without options that older sweeps do not have."""
    defaults = {"on_resume": None, "init_from": None, "test_after_fit": True}
    return {k: v for k, v in config.items() if k not in defaults or v != defaults[k]}


def _text(config: dict[str, Any]) -> str:
    text: str = yaml.dump(config, Dumper=_DUMPER, sort_keys=False)
    return text
