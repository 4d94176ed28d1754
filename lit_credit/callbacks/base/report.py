"""What a diagnostic makes of its history."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from matplotlib.figure import Figure

from lit_credit.callbacks.base.declared import check_class_names
from lit_credit.runs.files import save_figure, spared
from lit_credit.runs.history import History, Row
from lit_credit.runs.table import TableRow, write_table
from lit_credit.trainer.logging import log_figure, log_text
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.short_text import shortened

__all__ = ["ReportedDiagnostic"]


class ReportedDiagnostic(Callback):
    """Rows of measurements, of which figures, tables and a reading are made.

    Args:
        figure: draw the figure.
    """

    name: ClassVar[str]
    """Stem of the files; lower case with underscores."""
    section: ClassVar[str]
    """What the tags begin with."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        compute = getattr(cls, "compute", None)
        if compute is not None and not getattr(compute, "__isabstractmethod__", False):
            check_class_names(cls)

    def __init__(self, figure: bool) -> None:
        self.figure = figure
        self.history = History()
        self._rank_among_siblings = 0
        self._last_step = self._drawn_step = -1
        self._folder: Path | None = None
        self._failed: set[str] = set()

    def draw(self, rows: Sequence[Row], section: str) -> Figure | Mapping[str, Figure] | None:
        """The figure of the whole history, or several by name, one of them ``figure``; or None."""
        return None

    def table(
        self, rows: Sequence[Row], section: str
    ) -> list[TableRow] | Mapping[str, list[TableRow]]:
        """The lines of a table of the whole history, all with the same columns; none, no table.

        Or those of several tables by name, which go to ``<name>_<name of the table>.csv``.
        """
        return []

    def reading(self, rows: Sequence[Row], section: str) -> str | None:
        """What the history says, in a sentence or two, or None."""
        return None

    # Writing it

    @property
    def tag_prefix(self) -> str:
        """What the tags begin with in this Trainer: the section, with the sibling's number."""
        return self._numbered(self.section)

    def _numbered(self, name: str) -> str:
        rank = self._rank_among_siblings
        return f"{name}-{rank}" if rank else name

    def _sum_up(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.history.rows:
            self._spare(trainer, table=self._tabulate, reading=self._read_out, figure=self._draw)

    def _spare(self, trainer: Trainer, **parts: Callable[[Trainer], object]) -> None:
        """Make what the run can do without: of what cannot be made a warning tells, once."""
        failed = {}
        for part, make in parts.items():
            try:
                make(trainer)
            except Exception as error:
                reason = " ".join(str(error).split())
                failed[part] = shortened(f"{type(error).__name__}: {reason}", 300)
        if failed.keys() - self._failed:
            self._failed |= failed.keys()
            rank_zero_warn(
                f"{type(self).__name__}: {' and '.join(failed)} cannot be made: "
                f"{'; '.join(dict.fromkeys(failed.values()))}. The run goes on without."
            )

    def _tabulate(self, trainer: Trainer) -> None:
        section, stem = self._numbered(self.section), self._numbered(self.name)
        found = self.table(self.history.rows, section)
        tables = found if isinstance(found, Mapping) else {"": found}
        for name, lines in tables.items():
            if lines and self._folder is not None:
                path = self._folder / f"{stem}{name and f'_{name}'}.csv"
                with spared(path):
                    write_table(path, lines)

    def _read_out(self, trainer: Trainer) -> None:
        section = self._numbered(self.section)
        text = self.reading(self.history.rows, section)
        if text is not None:
            rank_zero_info(f"{section}: {text}")
            log_text(trainer, f"{section}/reading", text, self._last_step)

    def _draw(self, trainer: Trainer) -> None:
        if not self.figure or self._drawn_step == self._last_step:
            return
        self._drawn_step = self._last_step
        section = self._numbered(self.section)
        drawn = self.draw(self.history.rows, section)
        figures = {"figure": drawn} if isinstance(drawn, Figure) else drawn or {}
        for name, figure in figures.items():
            log_figure(trainer, f"{section}/{name}", figure, self._last_step)
            if self._folder is not None:
                stem = self._numbered(self.name) + ("" if name == "figure" else f"_{name}")
                save_figure(figure, self._folder / "figures" / f"{stem}.png")
