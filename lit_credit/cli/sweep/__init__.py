"""Many runs from one command: ``lit-credit sweep --config BASE --grid GRID.yaml --out TABLE``.

From Python: :func:`sweep`. Nothing is imported here: the workers of a cluster only start processes
and need no torch.
"""

from typing import TYPE_CHECKING

from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.cli.sweep.command import sweep

__all__ = ["sweep"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(__name__, {"command": "sweep"})
