"""Import paths of the version before, which work for one release.

``lit_credit.utils.history`` is ``lit_credit.runs.history`` now, and both name one module. Saved
checkpoints and configurations name classes by such paths.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lit_credit.former_paths import MODULES, NAMES, SPLIT

__all__ = [
    "current_path",
    "former_names",
    "import_former_paths",
    "named_by_a_file",
    "with_current_paths",
]


def current_path(path: str) -> str:
    """The import path of today for one of before; any other path as it is.

    Example:
        >>> current_path("lit_credit.callbacks.AdderAnatomy")
        'lit_credit.studies.addition.AdderAnatomy'
        >>> current_path("lit_credit.utils.history.History")
        'lit_credit.runs.history.History'
    """
    package, _, rest = path.partition(".")
    if package != "lit_credit":
        return path
    module, _, name = rest.rpartition(".")
    if rest in NAMES:
        home = NAMES[rest] if "." in module else ".".join(NAMES[rest].split(".")[:2])
        return f"lit_credit.{home}.{name}"
    if rest in MODULES:
        return f"lit_credit.{MODULES[rest]}"
    return f"lit_credit.{MODULES[module]}.{name}" if module in MODULES else path


def with_current_paths(config: Any) -> Any:
    """A configuration whose ``class_path`` entries are the import paths of today.

    Args:
        config: nested mappings and lists, as read from YAML.

    Example:
        >>> with_current_paths({"data": {"class_path": "lit_credit.datamodules.NGram"}})
        {'data': {'class_path': 'lit_credit.studies.ngram.NGram'}}
    """
    if isinstance(config, list):
        return [with_current_paths(item) for item in config]
    if not isinstance(config, dict):
        return config
    new = {key: with_current_paths(item) for key, item in config.items()}
    if isinstance(path := new.get("class_path"), str):
        new["class_path"] = current_path(path)
    return new


def former_names(package: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package or module, which finds the names that have left it.

    Args:
        package: ``__name__`` of the package or module.

    Returns:
        A function of a name. It warns of a path that will go, and raises ``AttributeError`` for
        a name that the package never had.
    """
    prefix = package.partition(".")[2]

    def __getattr__(name: str) -> Any:
        former = f"{prefix}.{name}"
        home = NAMES.get(former)
        if home is None and (former in MODULES or former in SPLIT):
            return import_module(f"{package}.{name}")
        if home is None and prefix in SPLIT and not name.startswith("__"):
            home = MODULES.get(prefix)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}")
        return getattr(import_module(f"lit_credit.{home}"), name)

    return __getattr__


@contextmanager
def named_by_a_file() -> Iterator[None]:
    """Former paths are imported without a warning: a saved file names them, and not a person."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*The former path will go", DeprecationWarning)
        yield


def import_former_paths() -> None:
    """Let ``import`` find modules under their paths of before, from now on."""
    if not any(isinstance(finder, _FormerPaths) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FormerPaths())


def _warn(path: str) -> None:
    warnings.warn(
        f"{path} is {current_path(path)} now. The former path will go with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )


class _KeepsFunctions(ModuleType):
    """A package of which a function and a former module have one name: the function has it.

    Python would bind the module there when it is imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _is_function(f"{self.__name__}.{name}")):
            super().__setattr__(name, value)


def _is_function(path: str) -> bool:
    """Whether the path of a former module is that of a function of today."""
    parent, _, name = path.rpartition(".")
    public = getattr(sys.modules[parent], "__all__", ())
    return path.partition(".")[2] in NAMES or name in public


class _FormerPaths(MetaPathFinder, Loader):
    """Finds a module under its path of before: the very module of today, not a copy.

    One that was split has the names that lie in several modules now.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package != "lit_credit" or not (rest in MODULES or rest in SPLIT):
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        path = module.__name__
        parent = path.rpartition(".")[0]
        if _is_function(path):
            sys.modules[parent].__class__ = _KeepsFunctions
        if path.partition(".")[2] in SPLIT:
            module.__dict__["__getattr__"] = former_names(path)
            return
        _warn(path)
        sys.modules[path] = import_module(f"lit_credit.{MODULES[path.partition('.')[2]]}")
