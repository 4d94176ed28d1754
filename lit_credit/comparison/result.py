"""The result of a comparison: tables, figures, and writing them to a folder."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from lit_credit.comparison.table import Cell, csv_text
from lit_credit.comparison.texts import Table
from lit_credit.runs.files import check_folder, reason_of, write_files
from lit_credit.utils.paths import local_path

__all__ = ["Comparison", "Figures"]

MAIN = "comparison"
"""Name of the figure over epochs."""
_SHARP, _NORMAL = 200, 150
"""Dots per inch of our figures, and of those of diagnostics."""


class Figures(Mapping[str, Figure]):
    """Figures by name; each is drawn when it is first asked for.

    Args:
        draw: name to a function that draws the figure.
    """

    def __init__(self, draw: Mapping[str, Callable[[], Figure]]) -> None:
        self._draw = draw
        self._drawn: dict[str, Figure] = {}

    def __getitem__(self, name: str) -> Figure:
        if name not in self._drawn:
            draw = self._draw[name]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about axes of extreme range
                    self._drawn[name] = draw()
            except Exception as error:  # a diagnostic's own figure may raise anything
                raise _undrawable(name, error) from error
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._draw)

    def __len__(self) -> int:
        return len(self._draw)


def _png(name: str, figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # matplotlib warns about axes of extreme range and about missing glyphs.
            warnings.simplefilter("ignore")
            figure.savefig(buffer, dpi=dpi)
    except Exception as error:  # matplotlib may raise anything for numbers that it cannot place
        raise _undrawable(name, error) from error
    return buffer.getvalue()


def _undrawable(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name}.png cannot be drawn from these histories: {type(error).__name__}: {error}. "
        "Compare fewer runs to find the one."
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    r"""Runs side by side.

    ``str(comparison)`` is the table as text, with the differences to the baseline and the notes.

    Attributes:
        table: the rows as plain data: column of the CSV to number or text; undefined numbers are
            NaN.
        figures: the figures by name, drawn when they are first asked for: ``comparison``, over
            epochs; ``over_KEY``, over a numeric factor; and those that diagnostics declare.
        notes: what is incomplete, what flags mean, what these numbers of runs can resolve.
        tables: the table of texts, and that of the differences to the baseline if there is one.

    Example:
        >>> text = Table(["rule", "n", "accuracy"], [["BP", "1", "0.98"]])
        >>> found = Comparison([{"rule": "BP", "n": 1, "accuracy": 0.98}], Figures({}), [], [text])
        >>> print(found)
        rule  n  accuracy
        BP    1      0.98
        >>> found.to_csv()
        'rule,n,accuracy\nBP,1,0.98\n'
    """

    table: list[dict[str, Cell]]
    figures: Mapping[str, Figure] = field(repr=False)
    notes: list[str] = field(repr=False)
    tables: Sequence[Table] = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([*_apart(table.text() for table in self.tables), *self.notes])

    def to_markdown(self) -> str:
        """The tables in Markdown."""
        return "\n".join(_apart(table.markdown() for table in self.tables))

    def to_latex(self) -> str:
        r"""The tables as ``tabular``, with the rules of LaTeX's package booktabs."""
        return "\n".join(_apart(table.latex() for table in self.tables))

    def to_csv(self) -> str:
        """The plain rows as CSV, undefined numbers empty."""
        return csv_text(self.table)

    def write(self, out: str | Path) -> list[Path]:
        """Write ``comparison.csv`` and each figure as PNG; older files are replaced.

        Args:
            out: the folder.

        Returns:
            The paths of the files.

        Raises:
            ValueError: if the folder cannot be written, or a figure cannot be drawn. Then nothing
                is written.
        """
        folder = Path(local_path(out, "--out"))
        check_folder(folder, "Give another --out.")
        files = {f"{MAIN}.csv": self.to_csv().encode()}
        for name, figure in self.figures.items():
            files[f"{name}.png"] = _png(name, figure, _SHARP if name == MAIN else _NORMAL)
        try:
            write_files(folder, files)
        except OSError as error:
            raise ValueError(
                f"--out: {folder} cannot be written: {reason_of(error)}. Give another --out."
            ) from error
        return [folder / name for name in files]


def _apart(tables: Iterator[list[str]]) -> list[str]:
    """The lines of tables, with an empty line between two of them."""
    lines: list[str] = []
    for table in tables:
        lines += ["", *table] if lines else table
    return lines
