"""Saving and restoring the contents of containers, objects, closures and parameters."""

import types
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor

from lit_credit.utils.private_names import gradient_hooks

__all__ = ["Box", "Cell", "Items", "Members", "Names", "Pairs", "Parameter", "same_values"]


class Box(ABC):
    """A container with its contents at the beginning; nothing is written to it until :meth:`put`.

    Attributes:
        held: the container, which stays the same object.
        saved: its contents at the beginning, by key.
    """

    held: Any
    saved: Mapping[Any, Any]

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Keys and values at the beginning."""
        return self.saved.items()

    @abstractmethod
    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""

    @abstractmethod
    def restore(self) -> None:
        """Restore the contents, in their order."""


class Pairs(Box):
    """A dict, such as that of an object's attributes."""

    def __init__(self, held: dict[Any, Any]) -> None:
        self.held, self.saved = held, dict(held)

    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""
        dict.__setitem__(self.held, key, value)

    def restore(self) -> None:
        """Restore the values that differ."""
        now, saved = self.held, self.saved
        if _same(now, saved) and _same(now.values(), saved.values()):
            return
        base: Any = OrderedDict if isinstance(now, OrderedDict) else dict
        base.clear(now)
        base.update(now, saved)


class Items(Box):
    """A list, a deque or a set."""

    def __init__(self, held: Any) -> None:
        self.held, self.saved = held, dict(enumerate(held))

    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""
        if isinstance(self.held, set):
            self.held.discard(self.saved[key])
            self.held.add(value)
        else:
            self.held[key] = value

    def restore(self) -> None:
        """Restore the values that differ."""
        if not _same(self.held, self.saved.values()):
            self.held.clear()
            (self.held.update if isinstance(self.held, set) else self.held.extend)(
                self.saved.values()
            )


class Members(Box):
    """The slots of an object."""

    def __init__(self, held: Any, slots: Mapping[str, Any]) -> None:
        self.held, self._slots = held, slots
        self.saved = self._now()

    def _now(self) -> dict[str, Any]:
        found = {}
        for name, slot in self._slots.items():
            try:
                found[name] = slot.__get__(self.held)
            except AttributeError:  # not set
                continue
        return found

    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""
        self._slots[key].__set__(self.held, value)

    def restore(self) -> None:
        """Restore the values that differ."""
        now = self._now()
        for name, value in self.saved.items():
            if name not in now or now[name] is not value:
                self.put(name, value)
        for name in now.keys() - self.saved.keys():
            self._slots[name].__delete__(self.held)


class Names(Box):
    """Some names of a class, or of the globals that functions use.

    Args:
        held: the class, or the dict of the globals.
        names: the names to save and restore.
    """

    def __init__(self, held: Any, names: Iterable[str]) -> None:
        self.held, self._names = held, tuple(names)
        self.saved = self._now()

    def _now(self) -> dict[str, Any]:
        values = self.held if isinstance(self.held, dict) else vars(self.held)
        return {name: values[name] for name in self._names if name in values}

    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""
        if isinstance(self.held, dict):
            self.held[key] = value
        else:
            type.__setattr__(self.held, key, value)

    def restore(self) -> None:
        """Restore the values that differ."""
        now = self._now()
        for name, value in self.saved.items():
            if name not in now or now[name] is not value:
                self.put(name, value)
        for name in now.keys() - self.saved.keys():
            if isinstance(self.held, dict):
                del self.held[name]
            else:
                type.__delattr__(self.held, name)


class Cell(Box):
    """A variable that a function closes over."""

    def __init__(self, held: types.CellType) -> None:
        self.held = held
        try:
            self.saved = {"": held.cell_contents}
        except ValueError:  # not filled yet
            self.saved = {}

    def put(self, key: Any, value: Any) -> None:
        """Replace the value at a key."""
        self.held.cell_contents = value

    def restore(self) -> None:
        """Restore the values that differ."""
        if self.saved:
            self.held.cell_contents = self.saved[""]


class Parameter:
    """A parameter that stays the same object, but uses other memory until it is restored.

    Args:
        tensor: the parameter, or another leaf tensor that requires a gradient.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.original = tensor.data
        self._lent: Tensor | None = None
        self._gradient = tensor.grad
        self._trained = tensor.requires_grad
        self._has_hooks = gradient_hooks(tensor) is not None

    def rest_on(self, outer: Mapping[int, Tensor]) -> bool:
        """Whether an outer state holds the same values, so that no copy is needed."""
        original = outer.get(id(self.tensor))
        if original is None or not same_values(self.original, original):
            return False
        self._lent, self.original = self.original, original
        return True

    def work_on(self, working: Tensor) -> None:
        """Use the memory of another tensor, and drop the gradient."""
        self.tensor.data = working
        self.tensor.grad = None

    def restore(self) -> None:
        """Restore memory, gradient and ``requires_grad``, and remove hooks added since."""
        tensor = self.tensor
        if self._lent is None:
            tensor.grad = None
            tensor.data = self.original
        elif tensor.data_ptr() != self._lent.data_ptr() or not same_values(
            tensor.data, self.original
        ):
            # In new memory: a graph may have saved the values that were written.
            tensor.data = self.original.to(self._lent.dtype, copy=True)
        if tensor.grad is not self._gradient:
            tensor.grad = self._gradient
        if tensor.requires_grad is not self._trained:
            tensor.requires_grad_(self._trained)
        if not self._has_hooks and (hooks := gradient_hooks(tensor)):
            hooks.clear()


def same_values(tensor: Tensor, original: Tensor) -> bool:
    """Whether a working copy, perhaps one raised to float64, has the values of its original."""
    return tensor.shape == original.shape and torch.equal(tensor, original.to(tensor.dtype))


def _same(now: Collection[Any], saved: Collection[Any]) -> bool:
    return len(now) == len(saved) and all(map(is_, now, saved))
