"""Reading grid files."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from lit_credit.runs.files import reason_of
from lit_credit.runs.yaml_files import read_yaml
from lit_credit.utils.paths import local_path

__all__ = ["MOST_RUNS", "RESERVED", "Point", "as_word", "leaf_options", "read_grid"]

RESERVED = ("config", "ckpt_path", "trainer.default_root_dir", "print_config", "help")
"""Options that the sweep itself sets in every cell."""

MOST_RUNS = 100_000
"""Largest number of runs of a sweep: points times seeds."""

_SEED, _CASES, _NAME = "seed_everything", "cases", "name"
_LONGEST_VALUE, _LONGEST_NAME = 40, 120
_KEY = re.compile(r"[^\W\d]\w*(\.\w+)*\+?")


@dataclass(frozen=True)
class Point:
    """One choice of overrides, to be run with every seed."""

    name: str
    """Built from the overrides; also the name of the folder."""
    case: str | None
    overrides: dict[str, Any]
    """Dotted name, as on the command line of ``fit``, to value."""


def read_grid(path: str | Path) -> tuple[list[Point], list[int] | None]:
    """Read a grid: the product of all lists and of the cases.

    Each entry of ``cases`` sets several names together and has a unique ``name``.
    ``seed_everything`` lists the seeds::

        model.class_path: [BP, FA, DFA]
        model.init_args.net.init_args.depth: [2, 4]
        cases:
          - {name: slow, model.init_args.optimizer.init_args.lr: 1.0e-4, trainer.max_epochs: 40}
          - {name: fast, model.init_args.optimizer.init_args.lr: 1.0e-3, trainer.max_epochs: 10}
        seed_everything: [42, 123, 456]

    Args:
        path: the YAML file.

    Returns:
        The points in the order of the file, the last name varying fastest; and the seeds, or None
        if the file has none.

    Raises:
        ValueError: if the file is not a grid, or has more than :data:`MOST_RUNS` runs.
    """
    path = local_path(path, "--grid")
    try:
        grid = read_yaml(path)
    except OSError as error:
        reason = reason_of(error)
        raise ValueError(f"--grid: {str(path)!r} cannot be read: {reason}.") from error
    except ValueError as error:
        raise ValueError(f"--grid: {str(path)!r}: {error}") from error
    if not isinstance(grid, dict) or not grid:
        raise ValueError(
            f"--grid: {str(path)!r} holds {_shown(grid)}. Expected a mapping of dotted names to "
            "lists of values, such as `model.class_path: [BP, DFA]`."
        )
    seeds = _seeds(grid.pop(_SEED)) if _SEED in grid else None
    cases = _cases(grid.pop(_CASES), grid) if _CASES in grid else {None: {}}
    for key, values in grid.items():
        _check_key(key)
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"--grid: {key}: {_shown(values)}. Expected a list of values, such as "
                f"`{key}: [{as_word(values) if values else 1}]`."
            )
    runs = prod((len(cases), len(seeds or [0]), *map(len, grid.values())))
    if runs > MOST_RUNS:
        raise ValueError(
            f"--grid: {str(path)!r} asks for {runs:,} runs, more than {MOST_RUNS:,}. Every list "
            "multiplies: shorten some, or vary names together in `cases`."
        )
    labels = _labels(grid)
    points = [
        _point(case, cases[case], dict(zip(grid, values, strict=True)), labels)
        for case, *values in product(cases, *grid.values())
    ]
    _refuse_twins("--grid: {} comes twice. Leave one of the two out.", [p.name for p in points])
    return points, seeds


def as_word(value: Any) -> str:
    """The value as a word of the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def leaf_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, each mapping as one option for each value in it.

    An option that appends to a list, such as ``trainer.callbacks+``, stays as it is.

    Args:
        options: dotted name to value.

    Example:
        >>> leaf_options({"model.init_args.net": {"class_path": "MLP", "init_args": {"depth": 2}}})
        {'model.init_args.net.class_path': 'MLP', 'model.init_args.net.init_args.depth': 2}
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, dict) and value and not name.endswith("+"):
            found |= leaf_options({f"{name}.{key}": leaf for key, leaf in value.items()})
        else:
            found[name] = value
    return found


def _point(
    case: str | None, together: dict[str, Any], values: dict[str, Any], labels: dict[str, str]
) -> Point:
    parts = [case] if case else []
    parts += [f"{labels[key]}={_slug(as_word(value))}" for key, value in values.items()]
    name = ",".join(parts) or "base"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{_digest(name)}"
    # A class comes before its arguments: choosing a class drops arguments that it does not take.
    overrides = sorted((together | values).items(), key=lambda item: item[0].count("."))
    return Point(name, case, dict(overrides))


def _seeds(values: Any) -> list[int]:
    if (
        not isinstance(values, list)
        or not values
        or any(type(v) is not int or not 0 <= v < 2**32 for v in values)
    ):
        raise ValueError(
            f"--grid: {_SEED}: {_shown(values)}. Expected a list of whole numbers from 0 to "
            "4294967295, such as [42, 123, 456]."
        )
    _refuse_twins(f"--grid: {_SEED}: {{}} comes twice. Leave one of the two out.", values)
    return values


def _cases(cases: Any, beside: Iterable[Any]) -> dict[str | None, dict[str, Any]]:
    expected = (
        f"Expected a list of mappings, each with a `{_NAME}` of letters, digits, `_`, `-` and `.`, "
        "and dotted names with one value each."
    )
    if not isinstance(cases, list) or not cases:
        raise ValueError(f"--grid: {_CASES}: {_shown(cases)}. {expected}")
    for case in cases:
        name = case.get(_NAME) if isinstance(case, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"--grid: {_CASES}: {_shown(case)}. {expected}")
        if _SEED in case:
            raise ValueError(f"--grid: {_CASES}: {name}: seeds stand beside the `{_CASES}`.")
        for key in case:
            _check_key(key, beside)
    _refuse_twins(
        f"--grid: {_CASES}: {_NAME}: {{}} comes twice. Give each a name of its own.",
        [case[_NAME] for case in cases],
    )
    return {case[_NAME]: {k: v for k, v in case.items() if k != _NAME} for case in cases}


def _check_key(key: Any, beside: Iterable[Any] = ()) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"--grid: {key!r}: expected a dotted name, such as trainer.max_epochs.")
    if key in RESERVED:
        raise ValueError(f"--grid: {key}: the sweep sets it itself. Leave it out.")
    if key in beside:
        raise ValueError(
            f"--grid: {key}: stands in the `{_CASES}` and beside them. Leave one of the two out."
        )


def _labels(grid: Mapping[str, Any]) -> dict[str, str]:
    """For each name, the shortest ending that is unique among the names."""
    fillers = ("init_args", "class_path", "dict_kwargs")
    parts = {key: [part for part in key.split(".") if part not in fillers] for key in grid}
    labels = {}
    for key, own in parts.items():
        ends = (own[-n:] for n in range(1, len(own) + 1))
        alone = (e for e in ends if sum(p[-len(e) :] == e for p in parts.values()) == 1)
        labels[key] = _slug(".".join(next(alone, [key])))
    return labels


def _slug(text: str) -> str:
    """``text`` as part of a folder name; different texts give different results."""
    safe = re.sub(r"[^\w.+-]+", "-", text).strip("-")
    if safe == text and len(text) <= _LONGEST_VALUE:
        return text
    return f"{safe[:_LONGEST_VALUE]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _refuse_twins(message: str, names: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise ValueError(message.format(name))
        seen.add(name)


def _shown(value: Any) -> str:
    text = as_word(value)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
