"""Classifying values by type: which hold state, and how it is saved."""

import array
import datetime
import enum
import functools
import io
import itertools
import pathlib
import random
import re
import sys
import sysconfig
import types
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_credit.utils.private_names import PRIVATE_TORCH

__all__ = ["COMMON", "CONTAINERS", "is_own_code", "kind_of", "names_used", "slots_of"]

COMMON = frozenset({int, float, bool, str, bytes, type(None), torch.dtype, torch.device})
"""The most common types of values. They hold no state."""
CONTAINERS = frozenset({dict, OrderedDict, list, set, deque})

_ITERABLES: tuple[Any, ...] = ([], (), "", b"", range(0), range(10**30), set(), {}, {}.values())
_KINDS: dict[str, tuple[Any, ...]] = {
    "script": (torch.jit.ScriptModule,),
    "tensor": (Tensor,),
    "object": (nn.Module,),
    "class": (type,),
    "atom": (
        *(int, float, complex, str, bytes, range, slice, frozenset, type(None), BaseException),
        *(types.ModuleType, types.CodeType, property, enum.Enum, pathlib.PurePath, re.Pattern),
        *(weakref.ReferenceType, datetime.date, datetime.time, datetime.timedelta, np.dtype),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, np.generic),
        *(torch.utils.data.Dataset, torch.utils.data.DataLoader, torch.utils.data.Sampler),
    ),
    "tuple": (tuple,),
    "dict": (dict,),
    "items": (list, deque, set),
    "array": (np.ndarray, bytearray, array.array),
    "random": (
        *(torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
        random.Random,
    ),
    "function": (
        *(types.FunctionType, types.MethodType, types.BuiltinMethodType, functools.partial),
    ),
    "copied": (
        *(type(iter(some)) for some in _ITERABLES),
        *(itertools.count, itertools.repeat, io.BytesIO, io.StringIO),
    ),
    "refused": (io.IOBase, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType),
}
_WRITERS = ("torch.utils.tensorboard", "tensorboardX", "wandb", "mlflow", "comet_ml", "neptune")
_FRAMEWORKS = ("lightning.", "pytorch_lightning.", "lightning_fabric.")
_STATELESS = frozenset(
    {
        *("argparse", "ast", "asyncio", "builtins", "concurrent", "functools", "importlib"),
        *("inspect", "logging", "multiprocessing", "operator", "re", "threading", "_thread"),
        *("typing", "weakref"),
        # Others whose objects are large, and do not change in a step.
        *("datasets", "h5py", "jsonargparse", "matplotlib", "numpy", "pandas", "PIL", "polars"),
        *("pyarrow", "rich", "sentencepiece", "tokenizers", "tqdm"),
    }
)
_STATELESS_TORCH = (PRIVATE_TORCH, "torch.cuda", "torch.fx", "torch.distributed", "torch.export")
_INSTALLED = tuple(
    sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


@functools.cache
def kind_of(kind: Any) -> str:
    """The kind of a type; "atom" if its values hold no state that a training step may change."""
    for name, bases in _KINDS.items():
        if issubclass(kind, bases):
            return name
    origin: str = kind.__module__
    if origin.startswith(_WRITERS) and kind.__name__ in ("SummaryWriter", "Run", "Experiment"):
        return "silent"
    is_python = bool(kind.__dictoffset__) or bool(slots_of(kind))
    lineage = [base for base in kind.__mro__ if base.__module__.startswith(_FRAMEWORKS)]
    # Of iterators, only those of classes written in Python may be entered, and no loaders.
    loads = bool(lineage) or origin.startswith("torch.utils.data")
    if hasattr(kind, "__next__") and (loads or not is_python):
        return "refused"
    if lineage:
        return "silent" if any(base.__name__ == "Logger" for base in lineage) else "atom"
    package = origin.partition(".")[0]
    is_stateless = package in _STATELESS or origin.startswith(_STATELESS_TORCH)
    if is_stateless and kind.__name__ != "Namespace":
        return "atom"
    if is_python:
        return "object"
    return "atom" if package in ("torch", "types") else "opaque"


@functools.cache
def slots_of(kind: Any) -> dict[str, Any]:
    """The descriptors of all slots of a class."""
    return {
        (name if base is kind else f"{base.__qualname__}.{name}"): slot
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if isinstance(slot, types.MemberDescriptorType)
    }


@functools.cache
def is_own_code(module: str | None) -> bool:
    """Whether a module, by name, is the user's own: not installed, and not part of lit_credit."""
    if module is None or module.partition(".")[0] == "lit_credit":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return module == "__main__" if file is None else not file.startswith(_INSTALLED)


@functools.lru_cache(maxsize=4096)
def names_used(code: types.CodeType) -> frozenset[str]:
    """The global names and attributes that a function, or a function inside it, mentions."""
    inner = (names_used(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inner)
