"""Lightning without what it loads and most commands never use.

Of the 7 s of CPU time that ``import lightning.pytorch`` takes, torch takes 2. Most of the rest are
packages that single metrics of torchmetrics want (torchvision, transformers, scipy), and torch's
compiler, for one class of which Lightning asks ``isinstance``. Here these imports are held back
until somebody asks for what they give. Every name stays where it is, and is the same object.
"""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["hold_imports", "load_held"]

_METRICS = ("torchmetrics", "torchmetrics.functional")
_HELD = ("audio", "detection", "image", "multimodal", "shape", "text", "video")
"""Packages in both of ``_METRICS`` that load others."""
_COMPILED = (
    "lightning.fabric.wrappers",
    "lightning_fabric.wrappers",
    "lightning.pytorch.utilities.compile",
    "pytorch_lightning.utilities.compile",
)
"""They ask whether a module is an ``OptimizedModule`` of torch's compiler."""
_RESULTS = tuple(
    f"{package}.trainer.connectors.logger_connector.result"
    for package in ("lightning.pytorch", "pytorch_lightning")
)
"""They keep two of their methods from being compiled."""


def hold_imports() -> None:
    """Hold back imports of Lightning and torchmetrics; does nothing if those are loaded."""
    if not {"lightning", "pytorch_lightning", "torchmetrics"} & set(sys.modules):
        sys.meta_path.insert(0, _Finder())


def load_held() -> None:
    """Load all that is held back of torchmetrics, if that is loaded."""
    for package in filter(None, map(sys.modules.get, _METRICS)):
        for name in dir(package):
            getattr(package, name)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent in _METRICS and name in _HELD:
            _patch_scipy()
        kinds = [(_METRICS, _Metrics), (_COMPILED, _Compiled), (_RESULTS, _Results)]
        for modules, kind in kinds:
            if fullname in modules:
                spec = PathFinder.find_spec(fullname, path)
                if spec is not None and isinstance(spec.loader, InspectLoader):
                    spec.loader = kind(spec.loader)
                return spec
        return None


class _Held(Loader):
    """Runs a module by its own loader, or without some of its statements."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # such as the source, for tracebacks

    def run(self, module: ModuleType, statements: list[ast.stmt]) -> None:
        path = self.loader.get_filename(module.__name__)
        exec(compile(ast.Module(statements, []), path, "exec"), module.__dict__)

    def tree(self, module: ModuleType) -> ast.Module:
        source: str = self.loader.get_source(module.__name__)
        return ast.parse(source)


class _Metrics(_Held):
    """A package whose names from slow packages are loaded when they are asked for."""

    def exec_module(self, module: ModuleType) -> None:
        tree = self.tree(module)
        held = [node for node in tree.body if _is_slow(node)]
        homes = {
            alias.asname or alias.name: node
            for node in held
            for found in ast.walk(node)
            if isinstance(found, ast.ImportFrom)
            for alias in found.names
        }
        names = vars(module)

        def __getattr__(name: str) -> Any:
            if name in homes:
                self.run(module, [homes[name]])
            elif name in _HELD and f"{module.__name__}.{name}" not in sys.modules:
                import_module(f"{module.__name__}.{name}")
            if name not in names:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return names[name]

        names.update(__getattr__=__getattr__, __dir__=lambda: sorted({*names, *homes}))
        self.run(module, [node for node in tree.body if node not in held])


class _Compiled(_Held):
    """A module with a stand-in for the class of torch's compiler."""

    def exec_module(self, module: ModuleType) -> None:
        tree = self.tree(module)
        held = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == _COMPILER]
        if any([alias.name for alias in node.names] != ["OptimizedModule"] for node in held):
            held = []  # another Lightning, which wants more
        if held:
            vars(module)["OptimizedModule"] = _OptimizedModule
        self.run(module, [node for node in tree.body if node not in held])


class _Results(_Held):
    """A module that decorates by ``torch.compiler.disable``, which loads the compiler at once."""

    def exec_module(self, module: ModuleType) -> None:
        # Not at the top: the command line answers some mistakes without torch.
        import torch

        from lit_credit.utils.private_names import late_disable

        decorate = torch.compiler.disable
        torch.compiler.disable = late_disable()
        try:
            self.loader.exec_module(module)
        finally:
            torch.compiler.disable = decorate


_COMPILER = "torch._dynamo"


class _IsCompiled(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        compiler = sys.modules.get(_COMPILER)  # without which there is no instance
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class _OptimizedModule(metaclass=_IsCompiled):
    pass


def _is_slow(node: ast.stmt) -> bool:
    """Whether a statement imports from slow packages; that of scipy is in :func:`_patch_scipy`."""
    names = [found.module for found in ast.walk(node) if isinstance(found, ast.ImportFrom)]
    slow = [f"{package}.{name}." for package in _METRICS for name in _HELD]
    if any(f"{name}.".startswith(tuple(slow)) for name in names):
        return True
    return isinstance(node, ast.If) and "import scipy.signal" in ast.unparse(node)


def _patch_scipy() -> None:
    """What ``import torchmetrics`` does for a package that its audio metrics use."""
    try:
        signal: Any = import_module("scipy.signal")
    except ImportError:
        return
    if not hasattr(signal, "hamming"):
        signal.hamming = signal.windows.hamming
