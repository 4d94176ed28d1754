"""Finding all state that is reachable from a module."""

import functools
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from copy import copy, deepcopy
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lit_credit.inspect.state.held_boxes import (
    Box,
    Cell,
    Items,
    Members,
    Names,
    Pairs,
    Parameter,
)
from lit_credit.inspect.state.held_kinds import (
    COMMON,
    CONTAINERS,
    is_own_code,
    kind_of,
    names_used,
    slots_of,
)
from lit_credit.inspect.state.stand_ins import Refused, silenced
from lit_credit.utils.private_names import MODULE_TABLES, PRIVATE_TORCH, TENSOR_HOOKS
from lit_credit.utils.random_state import put_back

__all__ = ["ReachableState"]

_NOT_IN_A_STEP = frozenset(
    {
        *("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"),
        *("__init__", "prepare_data", "setup", "configure_optimizers", "configure_callbacks"),
    }
)


class _Path(NamedTuple):
    """Where a value was found; made into text only if an error must name it."""

    parent: "_Path | None"
    key: str

    def __str__(self) -> str:
        before = "" if self.parent is None else str(self.parent)
        return before + self.key


class ReachableState:
    """Collects all state that is reachable from some objects, and writes to none of it.

    Args:
        roots: objects to begin with, by the names that errors give them.
        skipped: objects that are not entered.
        known: the objects to consider, by id; None considers all.
        functions: enter functions.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        *,
        skipped: Iterable[Any] = (),
        known: Mapping[int, Any] | None = None,
        functions: bool = True,
    ) -> None:
        self._seen: dict[int, Any] = {id(value): value for value in skipped}
        self._known = known
        self._functions = functions
        self._waiting: list[tuple[Box, _Path | None, bool]] = []
        # What was found.
        self._boxes: list[Box] = []
        self._empty: list[Any] = []
        self._parameters: list[Parameter] = []
        self._tensors: dict[int, Tensor] = {}
        self._stand_ins: dict[int, Any] = {}
        self._tuples: dict[int, bool] = {}
        self._undo: list[Callable[[], object]] = []
        self._slots: list[tuple[Box, Any, Any]] = []
        for name, root in roots.items():
            self._visit(root, _Path(None, name) if name else None)
        while self._waiting:
            self._open(*self._waiting.pop())

    # Finding

    def _open(self, box: Box, path: _Path | None, has_attributes: bool) -> None:
        """Visit what a container holds."""
        for key, value in box.items():
            if type(value) in COMMON:
                continue
            if type(value) in CONTAINERS and not value:  # most of what modules hold
                self._empty.append(value)
            elif has_attributes and key in MODULE_TABLES:
                self._push(Pairs(value), path, True)
            else:
                at = f"[{key!r}]" if not has_attributes else key if path is None else f".{key}"
                if self._visit(value, _Path(path, str(at))):
                    self._slots.append((box, key, value))

    def _visit(self, value: Any, path: _Path | None) -> bool:
        """Note what ``value`` holds; return whether a stand-in must replace it meanwhile."""
        found: Any = type(value)
        kind = kind_of(found)
        if kind == "atom":
            return False
        if kind == "tuple":
            return self._visit_tuple(value, path)
        if id(value) in self._seen:
            return id(value) in self._tensors or id(value) in self._stand_ins
        if self._known is not None and kind != "tensor" and id(value) not in self._known:
            return False
        self._seen[id(value)] = value
        return bool(getattr(self, f"_visit_{kind}")(value, path))

    def _push(self, box: Box, path: _Path | None, has_attributes: bool = False) -> None:
        self._boxes.append(box)
        self._waiting.append((box, path, has_attributes))

    def _visit_tuple(self, value: tuple[Any, ...], path: _Path | None) -> bool:
        if id(value) not in self._tuples:
            self._tuples[id(value)] = False
            self._seen[id(value)] = value
            found = [self._visit(part, _Path(path, f"[{i}]")) for i, part in enumerate(value)]
            self._tuples[id(value)] = any(found)
        return self._tuples[id(value)]

    def _visit_tensor(self, value: Tensor, path: _Path | None) -> bool:
        if isinstance(value, nn.Parameter) or (value.requires_grad and value.is_leaf):
            self._add_parameter(value, path)
            return False
        self._tensors[id(value)] = value
        return True

    def _add_parameter(self, value: Tensor, path: _Path | None) -> None:
        if not is_lazy(value):
            self._parameters.append(Parameter(value))
        if value.__dict__:
            self._push(Pairs(value.__dict__), path, True)
        for name in TENSOR_HOOKS:
            hooks = getattr(value, name, None)
            if hooks is not None:
                self._push(Pairs(hooks), _Path(path, f".{name}"))

    def _visit_script(self, value: Any, path: _Path | None) -> None:
        # Its attributes live in C++; the tensors found here are the same objects.
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            if id(tensor) not in self._seen:
                self._seen[id(tensor)] = tensor
                self._add_parameter(tensor, _Path(path, f".{name}"))

    def _visit_object(self, value: Any, path: _Path | None) -> None:
        kind: Any = type(value)
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._push(Pairs(attributes), path, True)
        if slots := slots_of(kind):
            self._push(Members(value, slots), path, True)
        if self._functions:
            self._visit(kind, path)

    def _visit_class(self, value: Any, path: _Path | None) -> None:
        """Note the attributes of a user's own class, and what its functions use."""
        for kind in value.__mro__:
            if (kind is not value and id(kind) in self._seen) or not is_own_code(kind.__module__):
                continue
            self._seen[id(kind)] = kind
            members = {name: m for name, m in vars(kind).items() if not _is_fixed(name, m)}
            functions = [(name, _function_in(m)) for name, m in vars(kind).items()]
            if members:
                self._push(Names(kind, members), _Path(None, kind.__qualname__), True)
            for name, function in functions:
                if function is not None and name not in _NOT_IN_A_STEP:
                    self._visit(function, _Path(None, f"{kind.__qualname__}.{name}"))

    def _visit_dict(self, value: dict[Any, Any], path: _Path | None) -> None:
        self._push(Pairs(value), path)
        self._visit_object(value, path)

    def _visit_items(self, value: Any, path: _Path | None) -> None:
        self._push(Items(value), path)
        self._visit_object(value, path)

    def _visit_function(self, value: Any, path: _Path | None) -> None:
        """Note a function's closure, its defaults, and the object that it is bound to."""
        if not self._functions:
            return
        if isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self._visit(part, path)
        elif not isinstance(value, types.FunctionType):
            if not isinstance(value.__self__, types.ModuleType):
                self._visit(value.__self__, path)
            self._visit(getattr(value, "__func__", None), path)
        elif not (value.__module__ or "").startswith(PRIVATE_TORCH):
            self._enter_function(value, path)

    def _enter_function(self, value: types.FunctionType, path: _Path | None) -> None:
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if id(cell) not in self._seen:
                self._seen[id(cell)] = cell
                self._push(Cell(cell), _Path(path, f" {name}"))
        for part in (value.__defaults__, value.__kwdefaults__):
            self._visit(part, path)
        if value.__dict__:
            self._push(Pairs(value.__dict__), path, True)
        if is_own_code(value.__module__):
            used = names_used(value.__code__)
            names = [n for n in used if n in value.__globals__ and n not in ("__builtins__",)]
            self._push(Names(value.__globals__, names), _Path(None, value.__module__), True)

    def _visit_array(self, value: Any, path: _Path | None) -> None:
        if isinstance(value, np.ndarray):
            if value.flags.writeable and not isinstance(value, np.memmap):
                self._undo.append(functools.partial(np.copyto, value, value.copy()))
        else:
            self._undo.append(functools.partial(value.__setitem__, slice(None), value[:]))

    def _visit_random(self, value: Any, path: _Path | None) -> None:
        self._visit_object(value, path)
        self._undo.append(put_back(value))

    def _visit_copied(self, value: Any, path: _Path | None) -> bool:
        self._stand_ins[id(value)] = copy(value)
        return True

    def _visit_opaque(self, value: Any, path: _Path | None) -> bool:
        try:
            self._stand_ins[id(value)] = deepcopy(value)
        except Exception:  # whatever a foreign type raises
            self._stand_ins[id(value)] = Refused(value, str(path))
        return True

    def _visit_refused(self, value: Any, path: _Path | None) -> bool:
        if any(value is stream for stream in (sys.stdin, sys.stdout, sys.stderr)):
            return False
        self._stand_ins[id(value)] = Refused(value, str(path))
        return True

    def _visit_silent(self, value: Any, path: _Path | None) -> bool:
        self._stand_ins[id(value)] = silenced(value)
        return True


def _function_in(member: Any) -> Any:
    """The function of a method, property or static method; None if it is not one."""
    if isinstance(member, property):
        return member.fget
    member = getattr(member, "__func__", member)
    return member if isinstance(member, types.FunctionType) else None


def _is_fixed(name: str, member: Any) -> bool:
    """Whether a member of a class is not state: a function, a descriptor or a special name."""
    if name.startswith("__") or name.startswith("_abc_"):
        return True
    return _function_in(member) is not None or hasattr(type(member), "__get__")
