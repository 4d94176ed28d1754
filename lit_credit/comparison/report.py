"""Comparing runs: a table as text and as CSV, and figures."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from lit_credit.comparison.figure import comparison_figure
from lit_credit.comparison.groups import grouped
from lit_credit.comparison.known import (
    declared_figures,
    declared_quantities,
    declares_metrics,
    found_class,
    kinds_of,
    known_histories,
    look_of,
    our_figures,
    our_quantities,
)
from lit_credit.comparison.quantities import (
    METRICS,
    Quantity,
    as_they_are,
    metric_quantity,
    named_apart,
    of_loaders,
)
from lit_credit.comparison.table import Summary, csv_bytes, flag_texts, summarise, text_table
from lit_credit.headlines import ComparisonFigure, Look
from lit_credit.plotting._runs import run_colors
from lit_credit.plotting._style import verbatim
from lit_credit.runs.files import check_folder, reason_of, write_files
from lit_credit.runs.run_folder import (
    Run,
    find_runs,
    history_files,
    read_ordered_rows,
    read_run,
)
from lit_credit.runs.series import Histories
from lit_credit.utils.paths import local_path

__all__ = ["compare"]


def compare(runs: str | Path | Sequence[str | Path], out: str | Path) -> str:
    """Compare runs by rule: figures, a table as CSV, and the same table as text.

    Runs that differ only by seeds and paths form one row. The numbers of a row are means over its
    runs, each run at its last epoch; ``growth`` is the mean of |h_L| at the end divided by its mean
    at epoch 0. A run whose rows tell no epochs, such as a diagnosis of checkpoints of another
    project, is counted in optimizer steps.

    The classes of the runs declare the quantities that are compared, see docs/compare.md. If a task
    or a callback cannot be imported, or a run has no configuration, its quantities are shown under
    their tags.

    Args:
        runs: run folders, or folders that contain run folders at any depth; one or several.
        out: folder for ``comparison.png``, ``comparison.csv`` and the figures that diagnostics of
            these runs declare; older files are replaced.

    Returns:
        The table, mean ± sample standard deviation, and a line for everything that is incomplete.

    Raises:
        ValueError: before anything is written, if there are no runs, a run cannot be read, a row or
            a configuration is broken, two runs of a configuration have the same seed, a declaration
            has the wrong type, or ``out`` cannot be written.
    """
    folder = Path(local_path(out, "--out"))
    check_folder(folder, "Give another --out.")
    found, quantities = _read(runs)
    looks: dict[str, Look] = {}
    for run in found:
        looks.setdefault(run.rule, look_of(run))
    groups = grouped(found, looks)
    quantities = named_apart([*quantities, *of_loaders(quantities, found)])
    summaries = summarise(groups, quantities, looks)
    own = {label: looks[runs_[0].rule].color for label, runs_ in groups.items()}
    colors = run_colors(list(groups), own)
    subjects = list(dict.fromkeys(run.subject for s in summaries for run in s.runs))
    title = subjects[0] if len(subjects) == 1 else ""
    figures = _figures(found)
    text = "\n".join(
        [
            *text_table(summaries, quantities),
            *flag_texts(summaries, quantities, looks),
            *(note for summary in summaries for note in _notes(summary, quantities)),
            *_figure_notes(figures),
        ]
    )
    histories = {s.label: [run.histories for run in s.runs] for s in summaries}
    places = " or ".join(dict.fromkeys(run.place for run in found))
    drawn = _drawn(histories, title, colors, quantities, figures, places)
    files = {"comparison.csv": csv_bytes(summaries, quantities), **drawn}
    try:
        write_files(folder, files)
    except OSError as error:
        raise ValueError(
            f"--out: {folder} cannot be written: {reason_of(error)}. Give another --out."
        ) from error
    return text


def _read(paths: str | Path | Sequence[str | Path]) -> tuple[list[Run], list[Quantity]]:
    """The runs, with the histories that are compared, and the quantities."""
    paths = [paths] if isinstance(paths, str | Path) else paths
    runs, quantities = [], list(our_quantities())
    for folder in find_runs(paths):
        run = read_run(folder, _histories_of)
        declared = _quantities_of(run)
        declared += _undeclared(run, declared)
        if run.histories:
            runs.append(_placed(run))
            quantities = named_apart([*quantities, *declared])
    if not runs:
        listed = ", ".join(str(path) for path in paths)
        raise ValueError(
            f"RUN: no run in {listed!r} has anything to compare: no history holds a quantity that "
            "its class declares. Train with MetricHistory, or a diagnostic that has a headline."
        )
    return runs, quantities


def _placed(run: Run) -> Run:
    """The run; with optimizer steps in place of epochs if its rows tell no epochs."""
    rows = [row for rows in run.histories.values() for row in rows]
    if any(row["epoch"] for row in rows) or len({row["step"] for row in rows}) < 2:
        return run
    by_steps = {
        name: [{**row, "epoch": row["step"]} for row in rows]
        for name, rows in run.histories.items()
    }
    return replace(run, histories=by_steps, place="optimizer steps")


def _quantities_of(run: Run) -> list[Quantity]:
    added = map(metric_quantity, run.metrics)
    return named_apart([*our_quantities(), *declared_quantities(kinds_of(run)), *added])


def _figures_of(run: Run) -> list[tuple[str, ComparisonFigure]]:
    return [*our_figures(), *declared_figures(kinds_of(run))]


def _histories_of(run: Run) -> list[str]:
    names = [quantity.history for quantity in _quantities_of(run)]
    return list(dict.fromkeys([*names, *(name for name, _ in _figures_of(run))]))


def _undeclared(run: Run, declared: Sequence[Quantity]) -> list[Quantity]:
    """Quantities of classes that cannot be imported; adds their histories to the run.

    Also the metrics of a task of one's own that declares no headline.
    """
    found: list[Quantity] = []
    if not run.class_path or any(found_class(path) is None for path in run.callbacks):
        known = known_histories(run)
        for path in history_files(run.folder):
            if path.stem in known or path.stem in run.histories:
                continue
            try:
                run.histories[path.stem] = read_ordered_rows(path)
            except ValueError:  # not what a diagnostic writes
                continue
            found += as_they_are(path.stem, run.histories, declared)
    if not run.class_path or (run.task and not declares_metrics(run.task)):
        known_metrics = [*declared, *of_loaders(declared, [run])]
        tags = as_they_are(METRICS, run.histories, known_metrics)
        own = run.task and found_class(run.task) is not None
        found += [metric_quantity(tag.name) if own else tag for tag in tags]
    return found


def _drawn(
    histories: Mapping[str, Sequence[Histories]],
    title: str,
    colors: Mapping[str, str],
    quantities: Sequence[Quantity],
    figures: Mapping[str, ComparisonFigure],
    places: str,
) -> dict[str, bytes]:
    """The figures as PNG, by file name."""
    # A dollar sign in the name of a folder does not begin a formula.
    runs = {verbatim(label): seeds for label, seeds in histories.items()}
    own = {verbatim(label): color for label, color in colors.items()}
    title = verbatim(title)
    draw = partial(comparison_figure, runs, title, quantities=quantities, colors=own, places=places)
    files = {"comparison.png": _png("comparison.png", draw, 200)}
    for name, figure in figures.items():
        files[name] = _png(name, partial(figure.draw, runs, title=title, colors=own), 150)
    return files


def _png(name: str, draw: Callable[[], Figure], dpi: int) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # matplotlib warns about axes of extreme range and about missing glyphs.
            warnings.simplefilter("ignore")
            draw().savefig(buffer, dpi=dpi)
    except Exception as error:  # matplotlib may raise anything for numbers that it cannot place
        raise ValueError(
            f"{name} cannot be drawn from these histories: {type(error).__name__}: {error}. "
            "Compare fewer runs to find the one."
        ) from error
    return buffer.getvalue()


def _figures(runs: Sequence[Run]) -> dict[str, ComparisonFigure]:
    """The figures of diagnostics, by file name, if some run has the diagnostic's history."""
    found: dict[str, ComparisonFigure] = {}
    for run in runs:
        for history, figure in _figures_of(run):
            name = f"{figure.stem}.png"
            if name in ("comparison.png", *found) and found.get(name) != figure:
                name = f"{history}_{name}"
            if history in run.histories:
                found.setdefault(name, figure)
    return found


def _figure_notes(figures: Mapping[str, ComparisonFigure]) -> list[str]:
    """One line per text of the figures, with the names of the files."""
    texts = dict.fromkeys(figure.text for figure in figures.values())
    return [
        f"{text}: {', '.join(name for name, figure in figures.items() if figure.text == text)}"
        for text in texts
    ]


def _notes(summary: Summary, quantities: Sequence[Quantity]) -> list[str]:
    """One line for everything that is incomplete in the runs of an experiment."""
    notes = []
    anywhere = {name for run in summary.runs for name in run.histories}
    for run in summary.runs:
        which = f"{summary.label}, seed {run.seed} ({run.folder})"
        if run.unfinished:
            notes.append(f"unfinished: {which}: epoch {run.last_epoch} of {run.max_epochs}")
        for name in dict.fromkeys(quantity.history for quantity in quantities):
            rows = run.histories.get(name)
            if rows is None and name in anywhere:
                notes.append(f"missing: {which}: no {name}.jsonl, other seeds have one")
            elif rows and (last := rows[-1]["epoch"]) < run.last_epoch:
                notes.append(f"stops early: {which}: {name}.jsonl ends at epoch {last}")
    return notes
