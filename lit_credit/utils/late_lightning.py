"""What nets and feedback take from Lightning, which they do without until they need it."""

import os
import sys

__all__ = ["misconfiguration", "rank_zero_info"]


def misconfiguration(message: str) -> Exception:
    """Lightning's ``MisconfigurationException``; a ``ValueError`` where there is no Lightning.

    Args:
        message: what is wrong, and the remedy.

    Example:
        >>> misconfiguration("No such unit.")
        MisconfigurationException('No such unit.')
    """
    try:
        # Whoever catches Lightning's class has imported it; nobody else waits for it.
        from lightning.fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        return ValueError(message)
    return MisconfigurationException(message)


def rank_zero_info(message: str) -> None:
    """Lightning's ``rank_zero_info``; a line on standard error where Lightning is not loaded.

    Args:
        message: one line.
    """
    if "lightning.pytorch" in sys.modules:
        # Loaded already.
        from lightning.pytorch.utilities import rank_zero_info

        rank_zero_info(message)
    elif os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
