"""Using Lightning's exception and messages without importing Lightning early."""

import os
import sys

__all__ = ["misconfiguration", "rank_zero_info"]


def misconfiguration(message: str) -> Exception:
    """Make Lightning's ``MisconfigurationException``; a ``ValueError`` without Lightning.

    Args:
        message: what is wrong, and the remedy.

    Example:
        >>> misconfiguration("No such unit.")
        MisconfigurationException('No such unit.')
    """
    try:
        # Imported only when raised: nets and feedback run without Lightning.
        from lightning.fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        return ValueError(message)
    return MisconfigurationException(message)


def rank_zero_info(message: str) -> None:
    """Call Lightning's ``rank_zero_info``, or print to standard error if Lightning is not loaded.

    Args:
        message: one line.
    """
    if "lightning.pytorch" in sys.modules:
        # Loaded already.
        from lightning.pytorch.utilities import rank_zero_info

        rank_zero_info(message)
    elif os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
