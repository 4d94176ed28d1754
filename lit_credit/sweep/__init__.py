"""Many runs from one command: ``lit-credit sweep --config BASE --grid GRID.yaml --out TABLE``."""

from lit_credit.sweep.cell import Cell
from lit_credit.sweep.command import main, sweep
from lit_credit.sweep.grid import Point, read_grid

__all__ = ["Cell", "Point", "main", "read_grid", "sweep"]
