"""Series of saved weights: telling their steps, checking them, and putting them in order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, groupby, islice
from numbers import Integral
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_credit.runs.foreign_weights import shapes_of
from lit_credit.runs.saved_steps import epochs_in, step_in, step_of_name
from lit_credit.runs.weight_files import (
    read_saved,
    tensors_of,
    trained_weights,
)
from lit_credit.runs.weight_paths import existing_weights, expanded_weights
from lit_credit.utils.short_text import choice

__all__ = ["SavedWeights", "weight_series"]

_SHOWN = 10


@dataclass(frozen=True)
class SavedWeights:
    """Weights of one step.

    Args:
        step: optimizer steps taken.
        epoch: epochs completed; None if the file does not tell.
        source: the path, or the place in the series, for messages.
        path: path of the file or folder; None for weights in memory.
        key: where the weights lie in the file.
        held: the weights in memory.
    """

    step: int
    epoch: int | None
    source: str
    path: Path | None = None
    key: str | None = field(default=None, repr=False)
    held: Mapping[str, Any] | None = field(default=None, repr=False)

    def read(self) -> dict[str, Any]:
        """Read all contents; the tensors by name lie at ``state_dict``, on the CPU.

        Tensors of a file are mapped from the disk if its format allows, so that what is not used is
        not read. Weights in memory stay on their device.
        """
        if self.path is not None:
            return read_saved(self.path, self.key, "checkpoints")
        return {"state_dict": self.held, "global_step": self.step}


_Look = tuple[SavedWeights, dict[str, torch.Size]]
"""What is known of weights before they are used: with the shapes by name."""


def weight_series(checkpoints: Any, key: str | None = None) -> Iterable[SavedWeights]:
    """Find saved weights, and put them in the order of their steps.

    A file tells its step by an entry ``global_step``, ``step`` or ``iter``, or in
    ``trainer_state.json`` beside it; else its name does, see
    :func:`~lit_credit.runs.saved_steps.step_of_name`. Of two files with one step and equal weights,
    such as ``last.ckpt`` beside ``step=1200.ckpt``, the one with a number in its name is taken.

    Args:
        checkpoints: a path, a glob pattern, a folder, a series of these, or a series of
            ``(step, path)`` or ``(step, state_dict)``. Of a folder, all weights in it and below are
            taken, but not those in folders ``members``. Of an iterator over
            ``(step, state_dict)`` one item at a time is taken, in ascending order.
        key: where the weights lie in each file, as for
            :func:`~lit_credit.runs.weight_files.read_saved`.

    Returns:
        A list, whose files were all looked into; an iterator, if that is what was given.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if nothing is found, a file cannot be read, its step cannot be told, or two
            files have one step, or different names or shapes.
    """
    if isinstance(checkpoints, str | PathLike) or _is_pair(checkpoints):
        checkpoints = [checkpoints]
    elif isinstance(checkpoints, Mapping) and not tensors_of(checkpoints):
        checkpoints = list(checkpoints.items())
    elif isinstance(checkpoints, Mapping):
        checkpoints = [checkpoints]
    if isinstance(checkpoints, nn.Module) or not isinstance(checkpoints, Iterable):
        raise ValueError(
            f"`checkpoints` is {type(checkpoints).__name__}, expected a path, a pattern, a folder, "
            "or a series of paths, of (step, path) or of (step, state_dict)."
        )
    items = iter(checkpoints)
    first = list(islice(items, 1))
    if not first:
        raise ValueError("`checkpoints` is empty, expected one checkpoint or more.")
    is_lazy = _is_held(first[0]) and not isinstance(checkpoints, list | tuple)
    whole = _together(first, items)
    if is_lazy:
        return _one_by_one(whole)
    files: list[tuple[Path, int | None]] = []
    held: list[SavedWeights] = []
    for number, item in enumerate(whole, 1):
        if _is_held(item):
            held.append(_held(item, number))
        elif _is_pair(item) and isinstance(item[1], str | PathLike):
            files.append((existing_weights(item[1]), _checked(item[0], number)))
        elif isinstance(item, str | PathLike):
            files += [(path, None) for path in expanded_weights(item)]
        else:
            raise ValueError(_unknown(item, number))
    looks = [_look(path, step, key) for path, step in dict.fromkeys(files)]
    looks += [(saved, shapes_of(tensors_of(saved.held))) for saved in held]
    looks.sort(key=lambda look: look[0].step)
    return _distinct(looks)


def _is_pair(item: Any) -> bool:
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    return isinstance(item[0], Integral) and not isinstance(item[0], bool)


def _is_held(item: Any) -> bool:
    return _is_pair(item) and isinstance(item[1], Mapping)


def _held(item: Any, number: int) -> SavedWeights:
    step, weights = item
    source = f"item {number} of `checkpoints`"
    if not tensors_of(weights):
        raise ValueError(
            f"{source} holds {choice(map(str, weights), most=4)}, and no tensors by name; give "
            "(step, state_dict)."
        )
    return SavedWeights(_checked(step, number), None, source, held=weights)


def _checked(step: Any, number: int) -> int:
    if step < 0:
        raise ValueError(
            f"item {number} of `checkpoints` has step {step}, expected 0 or more: the number of "
            "optimizer steps taken."
        )
    return int(step)


def _together(first: list[Any], items: Iterator[Any]) -> Iterator[Any]:
    """The first item, which is not held, and the others."""
    yield first.pop()
    yield from items


def _one_by_one(items: Iterable[Any]) -> Iterator[SavedWeights]:
    """Items in ascending order of steps; none is held while the next is made."""
    numbers, last = count(1), None
    for item in items:  # `enumerate` would hold it
        number = next(numbers)
        if not _is_held(item):
            raise ValueError(_unknown(item, number))
        saved = _held(item, number)
        if last is not None and saved.step <= last:
            raise ValueError(
                f"{saved.source} has step {saved.step} after step {last}. Give them in ascending "
                "order, each step once; a list is put in order."
            )
        last = saved.step
        yield saved
        del item, saved


def _unknown(item: Any, number: int) -> str:
    what = type(item).__name__
    if isinstance(item, Mapping) and tensors_of(item):
        what = "a state_dict without its step"
    elif isinstance(item, tuple):
        what = f"({', '.join(type(part).__name__ for part in item)})"
    return (
        f"item {number} of `checkpoints` is {what}, expected a path, (step, path) or "
        "(step, state_dict)."
    )


# Steps


def _look(path: Path, step: int | None, key: str | None) -> _Look:
    found = read_saved(path, key, "checkpoints")
    if step is None:
        step = step_in(found)
    if step is None:
        step = step_of_name(path)
    if step is None:
        raise ValueError(
            f"`checkpoints`: {path} does not tell its step, by an entry `global_step` or a number "
            f"in its name. Give (step, path) instead, such as [(1000, {str(path)!r}), ...], or a "
            "pattern without this file."
        )
    saved = SavedWeights(step, epochs_in(found), str(path), path, key)
    return saved, shapes_of(tensors_of(found["state_dict"]))


def _distinct(looks: list[_Look]) -> list[SavedWeights]:
    """One of each step; raises ValueError if weights differ in kind, or within a step."""
    for look in looks[1:]:
        if look[1] != looks[0][1]:
            raise ValueError(_mixed(looks[0], look))
    found: list[SavedWeights] = []
    for step, group in groupby((saved for saved, _ in looks), attrgetter("step")):
        first, *others = sorted(group, key=_rank)
        for other in others:
            if not _are_equal(first, other):
                raise ValueError(
                    f"`checkpoints`: {first.source} and {other.source} both are of step {step}, "
                    "and their weights differ. Give the files of one run, or (step, path)."
                )
        found.append(first)
    return found


def _rank(saved: SavedWeights) -> tuple[bool, bool, str]:
    """Of files of one step, those first that tell their epoch, then those with numbers."""
    numbered = saved.path is not None and step_of_name(saved.path) is not None
    return saved.epoch is None, not numbered, saved.source


def _are_equal(one: SavedWeights, other: SavedWeights) -> bool:
    first, second = (tensors_of(trained_weights(saved.read())) for saved in (one, other))
    return first.keys() == second.keys() and all(
        torch.equal(value.cpu(), second[name].cpu()) for name, value in first.items()
    )


def _mixed(one: _Look, other: _Look) -> str:
    (first, a), (second, b) = one, other
    only = [[n for n in x if n not in y] for x, y in ((a, b), (b, a))]
    shapes = [f"{n} {tuple(a[n])} and {tuple(b[n])}" for n in a if n in b and a[n] != b[n]]
    differences = [
        f"{len(names)} tensors only in the {which} ({choice(names, most=_SHOWN)})"
        for which, names in zip(("first", "second"), only, strict=True)
        if names
    ]
    if shapes:
        differences.append(f"{len(shapes)} of other shapes ({choice(shapes, most=_SHOWN)})")
    return (
        f"`checkpoints` are of different nets: {first.source} and {second.source} have "
        f"{', '.join(differences)}. Give the files of one net, for example by a pattern."
    )
