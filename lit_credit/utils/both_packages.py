"""Treating Lightning's two packages, ``lightning.pytorch`` and ``pytorch_lightning``, as one.

The packages are copies of one another, but their classes are different objects. A third of the
active projects import the second, and some mix it with a Trainer of the first.
"""

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import lightning.pytorch
from lightning_utilities.core import rank_zero

__all__ = ["Callback", "LightningModule", "is_a", "with_twins"]

_T = TypeVar("_T")
_COPIES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}
_COPIES |= {copy: package for package, copy in _COPIES.items()}


def is_a(thing: Any, *classes: type[_T]) -> TypeGuard[_T]:
    """``isinstance`` for classes of Lightning or their twins in the other package.

    Nothing is imported: a class whose module is not loaded has no instances.

    Args:
        thing: any object.
        *classes: classes of either package; other classes have no twin.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> from pytorch_lightning.loggers import CSVLogger as TheirCSVLogger
        >>> isinstance(TheirCSVLogger("."), CSVLogger), is_a(TheirCSVLogger("."), CSVLogger)
        (False, True)
    """
    return isinstance(thing, with_twins(*classes))


def with_twins(*classes: type) -> tuple[type, ...]:
    """Classes of Lightning, and their twins in the other package if these are loaded."""
    twins = (_twin(kind) for kind in classes)
    return (*classes, *(twin for twin in twins if isinstance(twin, type)))


def _twin(kind: type) -> Any:
    for package, copy in _COPIES.items():
        if f"{kind.__module__}.".startswith(f"{package}."):
            module = sys.modules.get(copy + kind.__module__.removeprefix(package))
            return getattr(module, kind.__name__, None)
    return None


def _packages() -> list[Any]:
    """Both packages, `lightning.pytorch` first.

    `pytorch_lightning` is imported at once. After `lightning.pytorch`, which takes 5 s, this costs
    0.09 s and 6 MB. If it were imported later, classes made before would lack the base class that
    jsonargparse requires in its LightningCLI. Messages go to the logger of the package that was
    imported first, since a project may have set that logger's level.
    """
    is_theirs = "pytorch_lightning" in sys.modules
    log, form = rank_zero.log, warnings.formatwarning
    try:
        import pytorch_lightning
    except ImportError:  # Lightning requires it, but nothing here needs it
        return [lightning.pytorch]
    if is_theirs:
        log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    rank_zero.log, warnings.formatwarning = log, form
    return [lightning.pytorch, pytorch_lightning]


if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule
else:
    _PACKAGES = _packages()

    class Callback(*(package.Callback for package in _PACKAGES)):
        """A callback for the Trainers and the LightningCLIs of both packages."""

    class LightningModule(*(package.LightningModule for package in _PACKAGES)):
        """A module that a Trainer of the other package accepts; the module then refuses it."""
