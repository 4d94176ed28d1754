"""Comparing runs: a table, differences to a baseline, and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lit_credit.comparison.groups import (
    Group,
    grouped,
    hidden_differences,
    pooled_settings,
    without_twins,
)
from lit_credit.runs.acting import acts_by_path
from lit_credit.runs.columns import Columns
from lit_credit.runs.files import check_folder
from lit_credit.runs.history_rows import Row
from lit_credit.runs.read_ahead import reading_ahead
from lit_credit.runs.run_folder import (
    STEPS,
    Run,
    find_runs,
    history_files,
    read_configured,
)
from lit_credit.utils.paths import local_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lit_credit.comparison.reading import Material
    from lit_credit.comparison.result import Comparison
    from lit_credit.comparison.table import Cell
    from lit_credit.comparison.texts import Table
    from lit_credit.headlines import ComparisonFigure, Look

__all__ = ["compare"]

_MAIN = "comparison"


def compare(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    metric: str | Sequence[str] | None = (),
    by: str | Sequence[str] | None = (),
    baseline: str | None = None,
    representations: bool = False,
) -> Comparison:
    """Compare runs: a table, differences to a baseline, and figures.

    Runs that differ only by seeds and paths form one row. The numbers of a row are means over its
    finished runs, each run at its last epoch; ``growth`` is the mean of |h_L| at the end divided by
    its mean at epoch 0. An unfinished run counts in ``n`` and in no other number. A run whose rows
    tell no epochs, such as a diagnosis of checkpoints of another project, is counted in optimizer
    steps. Of several runs of a configuration with the same seed, the newest finished one is shown.

    The classes of the runs declare the quantities that are compared, see docs/compare.md. If a task
    or a callback cannot be imported, or a run has no configuration, its quantities are shown under
    their tags.

    Args:
        runs: run folders, or folders that contain run folders at any depth; one or several.
        out: folder to write to at once, see :meth:`Comparison.write`; None writes nothing.
        metric: tags to compare, columns or headings, or glob patterns of them. Empty takes what the
            classes declare.
        by: keys of the configuration, or the ends of such keys; runs with equal values form a row.
            ``rule`` is the class of the rule. Empty takes what differs, seeds aside.
        baseline: label of a row, or name of a rule; the differences to it are shown, paired by
            seed.
        representations: also compare what the layers of the runs know, by linear CKA with the
            baseline, or the first row. The runs need the callback
            :class:`lit_credit.callbacks.Representations`, and one probe. It adds a table, columns
            ``cka/L00`` .. and the figure ``representations``.

    Returns:
        The comparison; ``str`` gives the table, mean ± sample standard deviation, and a line for
        everything that is incomplete.

    Raises:
        ValueError: before anything is written, if there are no runs, a run cannot be read, a row or
            a configuration is broken, a tag, a key or a label is unknown, a declaration has the
            wrong type, ``out`` cannot be written, or representations cannot be compared, because
            fewer than two runs have them or their probes differ.
    """
    if out is not None:
        check_folder(Path(local_path(out, "--out")), "Give another --out.")
    metrics, keys = _listed(metric), _listed(by)
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        raise ValueError("RUN: no run is given. Give a folder that `lit-credit fit` wrote to.")
    configured = [read_configured(folder) for folder in find_runs(paths)]
    # Wrong keys and labels are refused before Lightning is loaded. Labels without --by also depend
    # on what callbacks of one's own do, which their classes say.
    groups = grouped(configured, {}, keys)
    own = any(acts_by_path(path) is None for run in configured for path in run.callbacks)
    if baseline is not None and (keys or not own):
        from lit_credit.comparison.baselines import baseline_label  # loads nothing

        baseline_label(baseline, groups)
    given = [Path(local_path(path, "RUN")) for path in paths]
    with reading_ahead([path for run in configured for path in history_files(run.folder)]) as ahead:
        from lit_credit.comparison.reading import read_material  # loads Lightning

        material = read_material(configured, metrics, given, ahead)
    comparison = _compared(material, keys, baseline, bool(metrics), representations)
    if out is not None:
        comparison.write(out)
    return comparison


def _listed(words: str | Sequence[str] | None) -> list[str]:
    """The words, each once."""
    return [words] if isinstance(words, str) else list(dict.fromkeys(words or ()))


def _compared(
    material: Material,
    by: Sequence[str],
    baseline: str | None,
    chosen: bool,
    representations: bool,
) -> Comparison:
    """The comparison of runs that are read."""
    # These load torch and matplotlib.
    from lit_credit.comparison.baselines import baseline_label
    from lit_credit.comparison.differences import (
        difference_notes,
        difference_table,
        differences_to,
        is_judged,
        without_difference,
    )
    from lit_credit.comparison.incomplete import incomplete
    from lit_credit.comparison.known import look_of
    from lit_credit.comparison.result import Comparison, Figures
    from lit_credit.comparison.table import (
        flag_texts,
        main_table,
        plain_rows,
        several_baselines,
        summarise,
    )

    runs, twins = without_twins(material.runs)
    looks: dict[str, Look] = {}
    for run in runs:
        looks.setdefault(run.rule, look_of(run))
    groups, quantities = grouped(runs, looks, by), material.quantities
    summaries = summarise(groups, quantities, looks)
    differences, of_differences = [], []
    if baseline is not None:
        judged = [q for q in quantities if chosen or is_judged(q)] or quantities
        label = baseline_label(baseline, groups)
        differences = differences_to(label, groups, judged)
        of_differences = [
            *difference_notes(differences),
            *without_difference(label, groups, differences),
        ]
    drawn, figures = _figures(material, groups, looks, baseline)
    notes = [
        *flag_texts(summaries, quantities, looks),
        *several_baselines(groups, looks),
        *of_differences,
        *(pooled_settings if by else hidden_differences)(list(groups.values())),
        *material.notes,
        *twins,
        *(note for summary in summaries for note in incomplete(summary, quantities)),
        *_figure_notes(figures),
    ]
    tables = [main_table(summaries, quantities)]
    tables += [difference_table(differences)] if differences else []
    rows = plain_rows(summaries, quantities, differences)
    if representations:
        table, more = _similarities(groups, baseline, rows, drawn)
        tables.append(table)
        notes += more
    return Comparison(rows, Figures(drawn), notes, tables)


def _similarities(
    groups: Mapping[str, Group],
    baseline: str | None,
    rows: Sequence[dict[str, Cell]],
    drawn: dict[str, Callable[[], Figure]],
) -> tuple[Table, list[str]]:
    """The table of CKA and its notes; adds its columns to ``rows``, its figure to ``drawn``."""
    from lit_credit.comparison.baselines import baseline_label
    from lit_credit.comparison.representations import (
        likenesses,
        similarity_figure,
        similarity_table,
    )

    reference = None if baseline is None else baseline_label(baseline, groups)
    found, notes = likenesses(_finished(groups), reference)
    columns = dict.fromkeys(tag for of in found for tag in of.diagonal())
    known = {of.label: of.diagonal() for of in found}
    for label, row in zip(groups, rows, strict=True):
        row.update({tag: known.get(label, {}).get(tag, math.nan) for tag in columns})
    drawn["representations"] = partial(similarity_figure, found)
    return similarity_table(found), notes


def _finished(groups: Mapping[str, Group]) -> dict[str, Group]:
    """The groups with their finished runs alone."""
    found = {
        label: replace(group, runs=[run for run in group.runs if not run.unfinished])
        for label, group in groups.items()
    }
    return {label: group for label, group in found.items() if group.runs}


def _figures(
    material: Material,
    groups: Mapping[str, Group],
    looks: Mapping[str, Look],
    baseline: str | None,
) -> tuple[dict[str, Callable[[], Figure]], dict[str, ComparisonFigure]]:
    """How each figure is drawn, by name, and the figures that diagnostics declare."""
    from lit_credit.comparison.baselines import baseline_label
    from lit_credit.comparison.factor_figure import factor_figure, numeric_factor
    from lit_credit.comparison.figure import comparison_figure, panels_of
    from lit_credit.comparison.labels import key_texts
    from lit_credit.plotting._runs import run_colors
    from lit_credit.plotting._style import verbatim

    # A dollar sign in the name of a folder does not begin a formula.
    places = {run.place for group in groups.values() for run in group.runs}
    runs = {
        verbatim(label): [_by_one_place(run, len(places) > 1) for run in _drawn(g)]
        for label, g in groups.items()
    }
    own = {verbatim(label): looks[g.runs[0].rule].color for label, g in groups.items()}
    colors = run_colors(list(runs), own)
    found = list(dict.fromkeys(run.subject for group in groups.values() for run in group.runs))
    title = verbatim(found[0]) if len(found) == 1 else ""
    draw: dict[str, Callable[[], Figure]] = {
        _MAIN: partial(
            comparison_figure,
            runs,
            title,
            quantities=material.quantities,
            colors=own,
            places=places.pop() if len(places) == 1 else STEPS,
            always=[] if baseline is None else [verbatim(baseline_label(baseline, groups))],
        )
    }
    factor = numeric_factor(groups)
    if factor is not None:
        name = re.sub(r"[^\w.-]", "_", key_texts([factor])[factor])
        panels = panels_of(material.quantities, runs)
        rules = {rule: look.color for rule, look in looks.items()}
        draw[f"over_{name}"] = partial(factor_figure, groups, factor, panels, rules, title)
    figures = _declared_figures(material, groups, set(draw))
    for name, figure in figures.items():
        draw[name] = partial(figure.draw, runs, title=title, colors=colors)
    return draw, figures


def _by_one_place(run: Run, by_steps: bool) -> Mapping[str, Sequence[Row]]:
    """The rows of a run, over optimizer steps if other runs are."""
    if not by_steps:
        return run.histories
    return {n: r.by_steps() if isinstance(r, Columns) else r for n, r in run.histories.items()}


def _drawn(group: Group) -> list[Run]:
    """The finished runs; all of them if none is finished."""
    return [run for run in group.runs if not run.unfinished] or group.runs


def _declared_figures(
    material: Material, groups: Mapping[str, Group], taken: set[str]
) -> dict[str, ComparisonFigure]:
    """The figures of diagnostics, by name, if some run has the diagnostic's history."""
    measured = {name for group in groups.values() for run in group.runs for name in run.histories}
    found: dict[str, ComparisonFigure] = {}
    for history, figure in material.figures:
        name = figure.stem
        if name in taken | found.keys() and found.get(name) != figure:
            name = f"{history}_{name}"
        if history in measured:
            found.setdefault(name, figure)
    return found


def _figure_notes(figures: Mapping[str, ComparisonFigure]) -> list[str]:
    """One line per text of the figures, with the names of the files."""
    texts = dict.fromkeys(figure.text for figure in figures.values())
    return [
        f"{text}: {', '.join(f'{name}.png' for name, f in figures.items() if f.text == text)}"
        for text in texts
    ]
