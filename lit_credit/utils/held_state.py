"""All state that can be reached from a module: found, replaced by working copies, put back."""

import array
import datetime
import enum
import functools
import io
import itertools
import pathlib
import random
import re
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from copy import copy
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lit_credit.utils.refused import Refused, silenced
from lit_credit.utils.storage_copies import copies_of

__all__ = ["HeldState"]

_ATOMS: tuple[type, ...] = (
    *(int, float, complex, str, bytes, range, slice, frozenset, type(None), type(Ellipsis)),
    *(type, types.ModuleType, types.CodeType, property, enum.Enum, pathlib.PurePath),
    *(re.Pattern, weakref.ReferenceType, datetime.date, datetime.time, datetime.timedelta),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, np.generic),
    *(np.dtype, BaseException),
)
_NEVER_ENTERED = (torch.utils.data.Dataset, torch.utils.data.DataLoader, torch.utils.data.Sampler)
_COPIED_ITERATORS = tuple(
    type(iter(empty))
    for empty in ([], (), "", b"", range(0), range(10**30), set(), {}, {}.values())
)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinMethodType, functools.partial)
_FRAMEWORKS = ("lightning.", "pytorch_lightning.", "lightning_fabric.")


class _Path(NamedTuple):
    """Where a value was found: written out only if an error must name it."""

    parent: "_Path | None"
    key: str

    def __str__(self) -> str:
        parts: list[str] = []
        at: _Path | None = self
        while at is not None:
            parts.append(at.key)
            at = at.parent
        return "".join(reversed(parts)).lstrip(".")


class HeldState:
    """Working copies of all state that is reachable from some objects, until :meth:`restore`.

    Containers stay the same objects, and their contents come back: attributes, lists, dicts, sets,
    deques, slots, cells of closures. In them tensors are replaced by copies, so that the originals
    are never written to; a graph that needs a copy keeps it. Parameters stay the same objects too,
    with the memory of a copy as their ``data``, and without a gradient. Generators of random
    numbers and numpy arrays are set back. What cannot be copied is replaced by a stand-in that
    raises where it is used.

    Args:
        roots: objects to begin with, by the names that errors give them.
        skipped: objects that are not entered.
        outer: a state that holds already. What has come since then, as the hooks of a measurement
            and what they record, is not entered; tensors that have still the values of its
            originals are not copied again.
        functions: enter functions, by what they close over and what they are bound to.
    """

    def __init__(
        self,
        roots: dict[str, Any],
        *,
        skipped: Iterable[Any] = (),
        outer: "HeldState | None" = None,
        functions: bool = True,
    ) -> None:
        self._seen: dict[int, Any] = {id(value): value for value in skipped}
        self._boxes: list[_Box] = []
        self._waiting: list[tuple[_Box, _Path]] = []
        self._slots: list[tuple[_Box, Any, Any]] = []
        self._copied: dict[int, Tensor] = {}
        self._stand_ins: dict[int, tuple[Any, Any]] = {}
        self._tuples: dict[int, bool] = {}
        self._empty: list[Any] = []
        self._undo: list[Callable[[], None]] = []
        self._leaves: list[_Leaf] = []
        self._outer: dict[int, Tensor] = {} if outer is None else outer.originals
        self._known = None if outer is None else outer._seen
        self._functions = functions
        for name, root in roots.items():
            self._visit(root, _Path(None, name))
        while self._waiting:
            self._open(*self._waiting.pop())
        self._work_on_copies()

    # Finding

    def _visit(self, value: Any, path: _Path) -> bool:
        """Note what ``value`` holds; whether another must stand in its place meanwhile."""
        kind = _kind(type(value))
        if kind == "atom":
            return False
        if kind == "tuple":
            return self._visit_tuple(value, path)
        if id(value) in self._seen:
            return id(value) in self._copied or id(value) in self._stand_ins
        if self._known is not None and kind != "tensor" and id(value) not in self._known:
            return False
        if kind == "function" and not self._functions:
            return False
        self._seen[id(value)] = value
        return bool(getattr(self, f"_visit_{kind}")(value, path))

    def _visit_tuple(self, value: tuple[Any, ...], path: _Path) -> bool:
        if id(value) not in self._tuples:
            self._tuples[id(value)] = False
            self._seen[id(value)] = value
            found = [self._visit(part, _Path(path, f"[{i}]")) for i, part in enumerate(value)]
            self._tuples[id(value)] = any(found)
        return self._tuples[id(value)]

    def _visit_tensor(self, value: Tensor, path: _Path) -> bool:
        if isinstance(value, nn.Parameter) or (value.requires_grad and value.is_leaf):
            self._add_leaf(value, path)
            return False
        self._copied[id(value)] = value
        return True

    def _add_leaf(self, value: Tensor, path: _Path) -> None:
        if not is_lazy(value):
            self._leaves.append(_Leaf(value))
        if value.__dict__:
            self._push(_Dict(value.__dict__), path)
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks = getattr(value, name, None)
            if hooks is not None:
                self._push(_Dict(hooks), _Path(path, f".{name}"))

    def _visit_script(self, value: Any, path: _Path) -> bool:
        # Its attributes lie in C++; the tensors are the same ones as there.
        for tensor in (*value.parameters(), *value.buffers()):
            if id(tensor) not in self._seen:
                self._seen[id(tensor)] = tensor
                self._add_leaf(tensor, path)
        return False

    def _visit_object(self, value: Any, path: _Path) -> bool:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._push(_Dict(attributes), path, ".")
        names = _slots_of(type(value))
        if names:
            self._push(_Slots(value, names), path, ".")
        return False

    def _visit_dict(self, value: dict[Any, Any], path: _Path) -> bool:
        self._push(_Dict(value), path)
        return self._visit_object(value, path)

    def _visit_list(self, value: Any, path: _Path) -> bool:
        self._push(_List(value), path)
        return self._visit_object(value, path)

    def _visit_set(self, value: set[Any], path: _Path) -> bool:
        self._push(_Set(value), path)
        return self._visit_object(value, path)

    def _visit_array(self, value: Any, path: _Path) -> bool:
        if isinstance(value, np.ndarray):
            if not value.flags.writeable or isinstance(value, np.memmap):
                return False
            before = value.copy()
            self._undo.append(lambda: np.copyto(value, before))
        else:
            whole = value[:]

            def undo() -> None:
                value[:] = whole

            self._undo.append(undo)
        return False

    def _visit_random(self, value: Any, path: _Path) -> bool:
        if isinstance(value, torch.Generator):
            state = value.get_state()
            self._undo.append(lambda: value.set_state(state) and None)
        elif isinstance(value, np.random.RandomState):
            legacy = value.get_state()
            self._undo.append(lambda: value.set_state(legacy))
        elif isinstance(value, random.Random):
            if not isinstance(value, random.SystemRandom):
                python = value.getstate()
                self._undo.append(lambda: value.setstate(python))
        else:
            bits: Any = value.bit_generator if isinstance(value, np.random.Generator) else value
            words = bits.state

            def undo() -> None:
                bits.state = words

            self._undo.append(undo)
        return self._visit_object(value, path)

    def _visit_function(self, value: Any, path: _Path) -> bool:
        """What a function carries along: cells, defaults, attributes, and what it is bound to."""
        if isinstance(value, functools.partial):
            self._visit(value.func, path)
            self._visit(value.args, path)
            return self._visit_dict(value.keywords, path)
        if not isinstance(value, types.FunctionType):
            owner = value.__self__
            if not isinstance(owner, types.ModuleType):
                self._visit(owner, path)
            return self._visit(getattr(value, "__func__", None), path)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            self._push(_Cell(cell), _Path(path, f".{name}"))
        self._visit(value.__defaults__, path)
        self._visit(value.__kwdefaults__, path)
        if value.__dict__:
            self._visit_object(value, path)
        return False

    def _visit_copied(self, value: Any, path: _Path) -> bool:
        self._stand_ins[id(value)] = value, copy(value)
        return True

    def _visit_refused(self, value: Any, path: _Path) -> bool:
        self._stand_ins[id(value)] = value, Refused(value, str(path))
        return True

    def _visit_silent(self, value: Any, path: _Path) -> bool:
        self._stand_ins[id(value)] = value, silenced(value)
        return True

    def _push(self, box: "_Box", path: _Path, dot: str = "") -> None:
        self._boxes.append(box)
        self._waiting.append((box, path if not dot else _Path(path, dot)))

    def _open(self, box: "_Box", path: _Path) -> None:
        dotted = path.key == "."
        for key, value in box.items():
            if type(value) in _COMMON:
                continue
            if type(value) in _CONTAINERS and not value:  # most of what modules hold
                self._empty.append(value)
                continue
            if not dotted:
                at = _Path(path, f"[{key!r}]")
            elif key in ("_modules", "_buffers", "_parameters") and isinstance(value, dict):
                at = path
                if id(value) not in self._seen:
                    self._seen[id(value)] = value
                    self._boxes.append(inner := _Dict(value))
                    self._waiting.append((inner, path))
                continue
            else:
                at = _Path(path.parent, f".{key}")
            if self._visit(value, at):
                self._slots.append((box, key, value))

    # Replacing

    def _work_on_copies(self) -> None:
        with torch.no_grad():
            own = [leaf for leaf in self._leaves if not leaf.rest_on(self._outer)]
            for leaf, working in zip(own, copies_of([one.original for one in own]), strict=True):
                leaf.work_on(working)
            self._shared = [
                _Lent(tensor, self._outer[id(tensor)])
                for tensor in self._copied.values()
                if _same_values(tensor, self._outer.get(id(tensor)))
            ]
        lent = {id(one.tensor) for one in self._shared}
        tensors = [tensor for key, tensor in self._copied.items() if key not in lent]
        copies = copies_of(tensors)
        self._seen |= {id(new): new for _, new in self._stand_ins.values()}
        self.originals = self._outer | {id(leaf.tensor): leaf.original for leaf in self._leaves}
        self.originals = self.originals | {
            id(new): old for new, old in zip(copies, tensors, strict=True)
        }
        self._working = copies  # so that no `id` is taken by another
        stand_ins = dict(zip(map(id, tensors), copies, strict=True))
        self._put(stand_ins | {key: new for key, (_, new) in self._stand_ins.items()})

    def _put(self, stand_ins: dict[int, Any]) -> None:
        for box, key, value in self._slots:
            new = self._replaced(value, stand_ins)
            if new is not value:
                box.put(key, new)

    def _replaced(self, value: Any, stand_ins: dict[int, Any]) -> Any:
        if id(value) in stand_ins:
            return stand_ins[id(value)]
        if not isinstance(value, tuple) or not self._tuples.get(id(value)):
            return value
        parts = [self._replaced(part, stand_ins) for part in value]
        if all(map(is_, parts, value)):
            return value
        made = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        stand_ins[id(value)] = made
        return made

    def restore(self) -> None:
        """Put everything back."""
        for leaf in self._leaves:
            leaf.restore()
        for box in self._boxes:
            box.restore()
        for container in self._empty:
            if container:
                container.clear()
        written = [one for one in self._shared if not _same_values(one.tensor, one.original)]
        if written:
            # Others in their places: a graph may need what the run has written.
            self._put({id(one.tensor): _like(one.tensor, one.original) for one in written})
        for undo in self._undo:
            undo()


class _Lent(NamedTuple):
    """A working copy of an outer state, used again without another copy."""

    tensor: Tensor
    original: Tensor


def _same_values(tensor: Tensor, original: Tensor | None) -> bool:
    """Whether a working copy, perhaps raised to float64, has the values of its original."""
    if original is None or tensor.shape != original.shape:
        return False
    return torch.equal(tensor, original.to(tensor.dtype))


def _like(tensor: Tensor, original: Tensor) -> Tensor:
    return original.to(tensor.dtype, copy=True)


class _Leaf:
    """A parameter, the same object throughout, whose memory is another meanwhile."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.original = tensor.data
        self._lent = False
        self._gradient = tensor.grad
        self._trained = tensor.requires_grad
        self._has_hooks = tensor._backward_hooks is not None

    def rest_on(self, outer: dict[int, Tensor]) -> bool:
        """Whether an outer state has the values, so that no copy is needed."""
        original = outer.get(id(self.tensor))
        self._lent = _same_values(self.original, original)
        if self._lent:
            self._working, self.original = self.original, original
        return self._lent

    def work_on(self, working: Tensor) -> None:
        self.tensor.data = working
        self.tensor.grad = None

    def restore(self) -> None:
        tensor = self.tensor
        if not self._lent:
            tensor.grad = None
            tensor.data = self.original
        elif tensor.data_ptr() != self._working.data_ptr() or not _same_values(
            tensor.data, self.original
        ):
            tensor.data = _like(self._working, self.original)
        if tensor.grad is not self._gradient:
            tensor.grad = self._gradient
        tensor.requires_grad_(self._trained)
        if not self._has_hooks and tensor._backward_hooks:
            tensor._backward_hooks.clear()


class _Box:
    """Something that holds values, as they were when it was found."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        raise NotImplementedError

    def put(self, key: Any, value: Any) -> None:
        raise NotImplementedError

    def restore(self) -> None:
        raise NotImplementedError


class _Dict(_Box):
    def __init__(self, held: dict[Any, Any]) -> None:
        self.held, self.saved = held, dict(held)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return self.saved.items()

    def put(self, key: Any, value: Any) -> None:
        dict.__setitem__(self.held, key, value)

    def restore(self) -> None:
        now, saved = self.held, self.saved
        if _same(now, saved) and _same(now.values(), saved.values()):
            return
        base: Any = OrderedDict if isinstance(now, OrderedDict) else dict
        base.clear(now)
        base.update(now, saved)


class _List(_Box):
    def __init__(self, held: Any) -> None:
        self.held, self.saved = held, list(held)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return enumerate(self.saved)

    def put(self, key: Any, value: Any) -> None:
        self.held[key] = value

    def restore(self) -> None:
        if not _same(self.held, self.saved):
            self.held.clear()
            self.held.extend(self.saved)


class _Set(_Box):
    def __init__(self, held: set[Any]) -> None:
        self.held, self.saved = held, list(held)

    def items(self) -> Iterable[tuple[Any, Any]]:
        return enumerate(self.saved)

    def put(self, key: Any, value: Any) -> None:
        self.held.discard(self.saved[key])
        self.held.add(value)

    def restore(self) -> None:
        if not _same(self.held, self.saved):
            self.held.clear()
            self.held.update(self.saved)


class _Slots(_Box):
    def __init__(self, held: Any, names: Iterable[str]) -> None:
        self.held, self.names = held, names
        self.saved = {name: getattr(held, name) for name in names if hasattr(held, name)}

    def items(self) -> Iterable[tuple[Any, Any]]:
        return self.saved.items()

    def put(self, key: Any, value: Any) -> None:
        object.__setattr__(self.held, key, value)

    def restore(self) -> None:
        for name in self.names:
            if name in self.saved:
                object.__setattr__(self.held, name, self.saved[name])
            elif hasattr(self.held, name):
                object.__delattr__(self.held, name)


class _Cell(_Box):
    def __init__(self, held: types.CellType) -> None:
        self.held = held
        try:
            self.saved = {"": held.cell_contents}
        except ValueError:  # not filled yet
            self.saved = {}

    def items(self) -> Iterable[tuple[Any, Any]]:
        return self.saved.items()

    def put(self, key: Any, value: Any) -> None:
        self.held.cell_contents = value

    def restore(self) -> None:
        if self.saved:
            self.held.cell_contents = self.saved[""]


def _same(now: Collection[Any], saved: Collection[Any]) -> bool:
    return len(now) == len(saved) and all(map(is_, now, saved))


_CONTAINERS = frozenset({dict, OrderedDict, list, set, deque})
_COMMON = frozenset({int, float, bool, str, bytes, type(None), torch.dtype, torch.device})


@functools.cache
def _slots_of(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                is_private = name.startswith("__") and not name.endswith("__")
                names.append(f"_{base.__name__.lstrip('_')}{name}" if is_private else name)
    return tuple(names)


@functools.cache
def _kind(kind: type) -> str:
    """Which ``_visit_`` a value of this type gets; "atom" if it holds no state."""
    for name, bases in _KINDS.items():
        if issubclass(kind, bases):
            return name
    origin = kind.__module__
    if origin.startswith(_WRITERS) and kind.__name__ in ("SummaryWriter", "Run", "Experiment"):
        return "silent"
    is_python = bool(kind.__dictoffset__) or bool(_slots_of(kind))
    if hasattr(kind, "__next__") and (not is_python or origin.startswith("torch.utils.data")):
        return "refused"
    lineage = [base.__module__ for base in kind.__mro__]
    if any(name.startswith(_FRAMEWORKS) for name in lineage):
        is_logger = any(base.__name__ == "Logger" for base in kind.__mro__)
        return "refused" if hasattr(kind, "__next__") else "silent" if is_logger else "atom"
    if origin.partition(".")[0] in _NOT_STATE:
        return "atom"
    return "object" if is_python else "atom"


_KINDS: dict[str, tuple[type, ...]] = {
    "script": (torch.jit.ScriptModule,),
    "tensor": (Tensor,),
    "object": (nn.Module,),
    "atom": (*_ATOMS, *_NEVER_ENTERED),
    "tuple": (tuple,),
    "dict": (dict,),
    "list": (list, deque),
    "set": (set,),
    "array": (np.ndarray, bytearray, array.array),
    "random": (
        *(torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
        random.Random,
    ),
    "function": _FUNCTIONS,
    "copied": (*_COPIED_ITERATORS, itertools.count, itertools.repeat, io.BytesIO, io.StringIO),
    "refused": (io.IOBase, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType),
}
_WRITERS = ("torch.utils.tensorboard", "tensorboardX", "wandb", "mlflow", "comet_ml", "neptune")
_NOT_STATE = frozenset(
    ("logging", "threading", "_thread", "multiprocessing", "concurrent", "asyncio", "argparse")
    + ("jsonargparse", "inspect", "importlib", "typing", "ast", "tqdm", "rich", "matplotlib")
)
