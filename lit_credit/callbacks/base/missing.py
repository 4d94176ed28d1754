"""The error for a module that lacks what a diagnostic needs."""

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule

__all__ = ["missing"]


def missing(callback: Callback, module: LightningModule, what: str, remedy: str) -> Exception:
    """The error for a module that lacks what a diagnostic needs.

    Args:
        callback: the diagnostic.
        module: the module.
        what: what is missing.
        remedy: a sentence.
    """
    return MisconfigurationException(
        f"{type(callback).__name__} needs {what}, which {type(module).__name__} does not have. "
        f"{remedy}"
    )
