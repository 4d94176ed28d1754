"""The history of a diagnostic: its files, its rows in a resumed run, and its report at the end."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from matplotlib.figure import Figure

from lit_credit.callbacks.base.values import MOST_LAYERS, of_all_layers, of_layers
from lit_credit.headlines import ComparisonFigure, Headline
from lit_credit.runs.files import save_figure, spared
from lit_credit.runs.history import History, Row
from lit_credit.runs.table import TableRow, write_table
from lit_credit.trainer.curves_again import continue_curves, flush_curves
from lit_credit.trainer.logging import (
    VALIDATION_CHARTS,
    log_charts,
    log_figure,
    log_scalars,
    log_text,
)
from lit_credit.trainer.trainer import callbacks_of, run_folder, stage_folder
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.inherited_docs import complete_arguments
from lit_credit.utils.short_text import shortened

__all__ = ["Report", "ReportedDiagnostic", "check_class_names", "diagnostics_of"]


@dataclass
class Report:
    """What a diagnostic made of its history last.

    Attributes:
        figures: by name, the main one as ``figure``.
        tables: by name; one without a name is ``""``.
        reading: what the history says, or None.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, list[TableRow]] = field(default_factory=dict)
    reading: str | None = None


class ReportedDiagnostic(Callback):
    """Keeps rows of measurements, and makes figures, tables and a reading from them.

    Args:
        figure: draw the figure.
    """

    name: ClassVar[str]
    """Stem of the files; lower case with underscores."""
    section: ClassVar[str]
    """First part of the tags."""
    charts: Sequence[str] = ()
    """Tags below the section; TensorBoard's custom scalars show all layers of each in one chart."""
    says_reading: bool = True
    """Whether the reading is also printed; a diagnosis returns it."""
    draw_each: bool = False
    """Whether the figure is drawn at every measurement instead of only at the end."""
    over_heads: ClassVar[Sequence[str]] = ("mean",)
    """What loggers get for the heads of a layer if there are many: ``mean``, ``max``, ``min``."""
    over_layers: ClassVar[Sequence[str] | None] = None
    """What loggers get for the layers if there are more than ``most_layers``: ``min``, ``median``,
    ``max``, ``mean``, or () for nothing; None keeps each layer. The history has them all."""
    most_layers: ClassVar[int] = MOST_LAYERS
    unlogged: ClassVar[Sequence[str]] = ()
    """Glob patterns of tags, without the section, that the history has and loggers do not get."""
    headline: ClassVar[Sequence[Headline]] = ()
    """The quantities by which runs are compared, see docs/compare.md."""
    comparison_figures: ClassVar[Sequence[ComparisonFigure]] = ()
    """Figures of several runs."""
    layer_texts: Sequence[str] = ()
    """What ``L00``, ``L01``, ... of the tags are, such as ``output of blocks.0``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        complete_arguments(cls)
        compute = getattr(cls, "compute", None)
        if compute is not None and not getattr(compute, "__isabstractmethod__", False):
            check_class_names(cls)

    def __init__(self, figure: bool) -> None:
        self.figure = figure
        self.history = History()
        self.report = Report()
        self._earlier: list[Row] = []
        self._rank_among_siblings = 0
        self._last_step = self._drawn_step = -1
        self._folder: Path | None = None
        self._opened = False
        self._failed: set[str] = set()

    def draw(self, rows: Sequence[Row], section: str) -> Figure | Mapping[str, Figure] | None:
        """The figure of the whole history, or several by name, one of them ``figure``; or None."""
        return None

    def table(
        self, rows: Sequence[Row], section: str
    ) -> list[TableRow] | Mapping[str, list[TableRow]]:
        """The lines of a table of the whole history, all with the same columns.

        An empty list writes no table. Several tables by name go to
        ``<name>_<name of the table>.csv``.
        """
        return []

    def reading(self, rows: Sequence[Row], section: str) -> str | None:
        """What the history says, in a sentence or two, or None."""
        return None

    def logged(self, tagged: Mapping[str, float]) -> dict[str, float]:
        """What loggers get of a row, by tag; the history has all of it.

        Args:
            tagged: values by tag, with the section.
        """
        kept = {
            tag: value
            for tag, value in tagged.items()
            if not any(fnmatchcase(tag.partition("/")[2], pattern) for pattern in self.unlogged)
        }
        return of_all_layers(of_layers(kept, self.over_heads), self.over_layers, self.most_layers)

    def described(self, tag: str) -> str:
        """The description of a tag in TensorBoard: the question, and what ``L03`` is.

        Args:
            tag: a tag with its section.
        """
        question = (type(self).__doc__ or "").strip().partition("\n")[0]
        layer = re.fullmatch(r"L(\d+)", tag.rpartition("/")[2])
        index = int(layer[1]) if layer else len(self.layer_texts)
        where = (
            f" L{index:02d}: {self.layer_texts[index]}." if index < len(self.layer_texts) else ""
        )
        return f"{type(self).__name__}: {question}{where}"

    # Folder and rows

    @property
    def tag_prefix(self) -> str:
        """First part of the tags in this Trainer: the section, with the sibling's number."""
        return self._numbered(self.section)

    @property
    def stem(self) -> str:
        """Stem of the files in this Trainer: the name, with the sibling's number."""
        return self._numbered(self.name)

    def _numbered(self, name: str) -> str:
        rank = self._rank_among_siblings
        return f"{name}-{rank}" if rank else name

    @property
    def has_begun(self) -> bool:
        """Whether the stage at work has come to the first measurement."""
        return self._opened

    @property
    def _rows(self) -> list[Row]:
        """The rows that figures, tables and readings are made of."""
        return [*self._earlier, *self.history.rows]

    def _find_place(self, trainer: Trainer, stage: str) -> None:
        siblings = [c for c in diagnostics_of(trainer) if c.name == self.name]
        self._rank_among_siblings = siblings.index(self)
        self._folder = run_folder(trainer) if stage == "fit" else stage_folder(trainer, stage)

    @property
    def _history_file(self) -> Path | None:
        return self._folder and self._folder / f"{self.stem}.jsonl"

    def _open_history(self, trainer: Trainer) -> None:
        """Open the file, with the rows of a resumed run, and lay out the charts."""
        later = self.history.open(self._history_file, trainer.global_step, trainer.ckpt_path)
        continue_curves(trainer, self.history.saved_at)
        for row in later:
            log_scalars(trainer, self.logged(row["values"]), row["step"], self.described)
        log_charts(trainer, self._charts(trainer))

    def _charts(self, trainer: Trainer) -> dict[str, dict[str, list[Any]]]:
        """The charts of all diagnostics, from the first only: a second layout would overwrite."""
        if diagnostics_of(trainer)[0] is not self:
            return {}
        layout: dict[str, dict[str, list[Any]]] = {**VALIDATION_CHARTS}
        for diagnostic in diagnostics_of(trainer):
            section = diagnostic._numbered(diagnostic.section)
            for chart in diagnostic.charts:
                tags = f"^{section}/{chart}(/.*)?$"
                layout.setdefault(section, {})[chart] = ["Multiline", [tags]]
        return layout

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make loggers write what they have buffered."""
        flush_curves(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows so far."""
        return self.history.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows of a resumed run."""
        self.history.load(state_dict)

    # Writing the report

    def _sum_up(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.history.rows:
            self._spare(trainer, table=self._tabulate, reading=self._read_out, figure=self._draw)

    def _spare(self, trainer: Trainer, **parts: Callable[[Trainer], object]) -> None:
        """Make parts of the report; warn once of a part that fails, since the run can continue."""
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
        found = self.table(self._rows, self.tag_prefix)
        tables = found if isinstance(found, Mapping) else {"": found}
        self.report.tables = {name: lines for name, lines in tables.items() if lines}
        for name, lines in self.report.tables.items():
            if self._folder is not None:
                path = self._folder / f"{self.stem}{name and f'_{name}'}.csv"
                with spared(path):
                    write_table(path, lines)

    def _read_out(self, trainer: Trainer) -> None:
        section = self.tag_prefix
        text = self.report.reading = self.reading(self._rows, section)
        if text is not None:
            if self.says_reading:
                rank_zero_info(f"{section}: {text}")
            log_text(trainer, f"{section}/reading", text, self._last_step)

    def _draw(self, trainer: Trainer) -> None:
        if not self.figure or self._drawn_step == self._last_step:
            return
        self._drawn_step = self._last_step
        section = self.tag_prefix
        drawn = self.draw(self._rows, section)
        self.report.figures = {"figure": drawn} if isinstance(drawn, Figure) else dict(drawn or {})
        for name, figure in self.report.figures.items():
            log_figure(trainer, f"{section}/{name}", figure, self._last_step)
            if self._folder is not None:
                stem = self.stem + ("" if name == "figure" else f"_{name}")
                save_figure(figure, self._folder / "figures" / f"{stem}.png")


def diagnostics_of(trainer: Trainer) -> list[ReportedDiagnostic]:
    """The Trainer's diagnostics, in its order."""
    return [c for c in callbacks_of(trainer) if isinstance(c, ReportedDiagnostic)]


_EXAMPLES = {
    "name": "the stem of its files, such as 'weight_sum' for weight_sum.jsonl",
    "section": "the first part of its tags, such as 'weight' for weight/sum",
}


def check_class_names(kind: type) -> None:
    """Refuse a diagnostic without ``name`` and ``section``, when its class is made.

    Raises:
        TypeError: if one is missing, or anything but letters, digits, ``_``, ``-`` and ``.``.
    """
    for attribute, example in _EXAMPLES.items():
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value):
            found = "is missing" if value is None else f"is {value!r}"
            raise TypeError(
                f"class {kind.__name__}: `{attribute}` {found}, expected a class attribute of "
                f"letters, digits and `_`: {example}."
            )
