"""Recording all visible state of a module by name, for comparisons bit by bit."""

import random
import types
from collections import deque
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_credit.utils.private_names import MODULE_TABLES, PLACES_OF_TRAINER

__all__ = ["random_states", "seen_state"]

_SKIPPED = (*PLACES_OF_TRAINER, "prepare_data_per_node")
_NUMBERS = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def seen_state(module: nn.Module) -> dict[str, str]:
    """A text for each object that a module holds; two texts are equal only if the bits are.

    Includes parameters, their gradients and ``requires_grad``, buffers, modes, hooks with their
    closures, and attributes with the objects that they refer to: numbers, tensors, arrays,
    containers, generators of random numbers, and other objects by their attributes.
    """
    found: dict[str, str] = {}
    _look(module, "", found, {})
    return found


def random_states() -> dict[str, str]:
    """The random states of the process."""
    return {
        "random": repr(random.getstate()),
        "numpy.random": _bits_of(np.random.get_state()),  # noqa: NPY002
        "torch": _text(torch.get_rng_state()),
    }


def _look(value: Any, name: str, found: dict[str, str], entered: dict[int, Any]) -> None:
    if isinstance(value, _NUMBERS):
        found[name] = repr(value)
    elif id(value) not in entered:
        entered[id(value)] = value  # the reference keeps the id from being reused
        if isinstance(value, Tensor):
            found[name] = f"{_text(value)} {value.requires_grad}"
            if value.is_leaf and value.grad is not None:
                found[f"{name}.grad"] = _text(value.grad)
        elif isinstance(value, np.ndarray):
            found[name] = f"{value.dtype} {value.shape} {value.tobytes().hex()}"
        elif (state := _generator_state(value)) is not None:
            found[name] = state
        else:
            if name.endswith("_hooks") and isinstance(value, dict):
                value = list(value.values())  # the keys number all hooks of the process
            parts = _parts(value)
            if not parts:
                found[name] = f"{type(value).__module__}.{type(value).__qualname__}"
            for key, part in parts:
                _look(part, f"{name}{key}" if name else key.lstrip("."), found, entered)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple | deque):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, set):
        return [("", repr(sorted(map(repr, value))))]
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        return [(f" {name}", cell.cell_contents) for name, cell in cells]
    if isinstance(value, types.MethodType):
        return [("", value.__self__)]
    own = getattr(type(value), "__module__", "")
    is_module = isinstance(value, nn.Module)
    if isinstance(value, type | types.ModuleType) or (
        own.startswith(("lightning.", "torch.optim")) and not is_module
    ):
        return []
    slots = [n for n in getattr(type(value), "__slots__", ()) if hasattr(value, n)]
    members = {n: getattr(value, n) for n in slots} | dict(getattr(value, "__dict__", {}))
    parts = [
        (f".{name}", part)
        for name, part in members.items()
        # The value of a cached property is not state.
        if name not in _SKIPPED
        and not isinstance(getattr(type(value), name, None), cached_property)
    ]
    if not is_module:
        return parts
    inner = tuple(f".{name}" for name in MODULE_TABLES)
    flat = [(f".{n}", p) for key in inner for n, p in members[key[1:]].items()]
    return flat + [pair for pair in parts if pair[0] not in inner]


def _generator_state(value: Any) -> str | None:
    if isinstance(value, torch.Generator):
        return _text(value.get_state())
    if isinstance(value, np.random.Generator):
        return _bits_of(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return _bits_of(value.get_state())
    return repr(value.getstate()) if isinstance(value, random.Random) else None


def _bits_of(state: Any) -> str:
    if isinstance(state, dict):
        return repr({key: _bits_of(part) for key, part in state.items()})
    if isinstance(state, tuple):
        return repr([_bits_of(part) for part in state])
    return state.tobytes().hex() if isinstance(state, np.ndarray) else repr(state)


def _text(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    bits = values.reshape(-1).view(torch.uint8).numpy().tobytes().hex() if values.numel() else ""
    shown = repr(values.item()) if values.numel() == 1 else tuple(values.shape)
    return f"{str(values.dtype).removeprefix('torch.')} {shown} {bits}"
