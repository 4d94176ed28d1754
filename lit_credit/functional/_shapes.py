"""Shapes of arguments, refused by name where they do not fit."""

import re
from typing import Protocol

import torch
from torch import Tensor


class Shaped(Protocol):
    """A tensor, or a matrix that is kept in factors."""

    @property
    def shape(self) -> torch.Size: ...


def check_shapes(expected: str, **arguments: Shaped | None) -> None:
    """Raise a ValueError that names all arguments and shapes unless they are as expected.

    Args:
        expected: One shape an argument, such as ``"(..., M, d), (N, d)"``: equal letters are equal
            sizes, digits are that size, and what "..." stands for broadcasts.
        **arguments: By name; None is left out.
    """
    forms = re.findall(r"\(.*?\)", expected)
    given = [
        (f"`{name}`", form, tuple(argument.shape))
        for (name, argument), form in zip(arguments.items(), forms, strict=True)
        if argument is not None
    ]
    if not _fit([(form[1:-1].split(", "), shape) for _, form, shape in given]):
        verb = "has shape" if len(given) == 1 else "have shapes"
        names, wanted, shapes = (_listed(part) for part in zip(*given, strict=True))
        raise ValueError(f"{names} {verb} {shapes}, expected {wanted}. Reshape or transpose.")


def check_index(name: str, index: Tensor, size: int) -> None:
    """Raise a ValueError unless these are whole numbers from 0 to ``size`` - 1."""
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"`{name}` has the dtype {index.dtype}, expected whole numbers.")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(
            f"`{name}` holds numbers from {int(index.min())} to {int(index.max())}, expected from "
            f"0 to {size - 1}."
        )


def _listed(parts: tuple[object, ...]) -> str:
    *most, last = map(str, parts)
    return f"{', '.join(most)} and {last}" if most else last


def _fit(pairs: list[tuple[list[str], tuple[int, ...]]]) -> bool:
    sizes: dict[str, int] = {}
    leading = []
    for letters, shape in pairs:
        if letters[0] == "...":
            letters = letters[1:]
            leading.append(shape[: len(shape) - len(letters)])
            shape = shape[len(leading[-1]) :]
        if len(letters) != len(shape):
            return False
        for letter, size in zip(letters, shape, strict=True):
            if sizes.setdefault(letter, int(letter) if letter.isdigit() else size) != size:
                return False
    try:
        torch.broadcast_shapes(*leading)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True
