"""Lightning's two packages, ``lightning.pytorch`` and ``pytorch_lightning``, as one.

They are copies of one another, and a class of one is not that of the other. A third of the projects
alive import the second, and some import one beside a Trainer of the other.
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

    Imports nothing: of a class whose module is not loaded there is no instance.

    Args:
        thing: any object.
        *classes: of either package; those from elsewhere have no twin.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> from pytorch_lightning.loggers import CSVLogger as TheirCSVLogger
        >>> isinstance(TheirCSVLogger("."), CSVLogger), is_a(TheirCSVLogger("."), CSVLogger)
        (False, True)
    """
    return isinstance(thing, with_twins(*classes))


def with_twins(*classes: type) -> tuple[type, ...]:
    """Classes of Lightning, and those of their twins that are loaded."""
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

    `pytorch_lightning` is imported: behind `lightning.pytorch`, which takes 5 s, that is 0.09 s and
    6 MB. To wait until a project imports it would leave a class that was made before without the
    base that jsonargparse asks for in their LightningCLI. Messages go to the logger of the package
    that was there first, whose level a project may have set.
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
        """A module of `lightning.pytorch` that a Trainer of the other lets say so itself."""
