"""Reading the runs of a comparison, and finding the quantities that they measured."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from lit_credit.comparison.known import (
    declared_figures,
    declared_quantities,
    declares_metrics,
    found_class,
    kinds_of,
    known_histories,
    our_figures,
    our_quantities,
    with_known_callbacks,
)
from lit_credit.comparison.quantities import (
    METRICS,
    TEST,
    Quantity,
    as_they_are,
    is_measured,
    metric_quantity,
    named_apart,
    of_loaders,
    of_patterns,
    of_test_data,
)
from lit_credit.headlines import LATE, ComparisonFigure
from lit_credit.runs.columns import Columns
from lit_credit.runs.read_ahead import Ahead
from lit_credit.runs.run_folder import STEPS, Run, history_files, read_ordered_columns
from lit_credit.runs.series import tags_of

__all__ = ["Material", "read_material"]

_Figures = list[tuple[str, ComparisonFigure]]


@dataclass(frozen=True)
class Material:
    """What a comparison is made of.

    Attributes:
        runs: runs with the histories that are compared.
        quantities: quantities in the order of their declaration.
        figures: figures of several runs, each with the history that it draws.
        notes: runs that were left out, and why.
    """

    runs: list[Run]
    quantities: list[Quantity]
    figures: _Figures
    notes: list[str]


def read_material(
    configured: Sequence[Run],
    metrics: Sequence[str] = (),
    given: Iterable[Path] = (),
    ahead: Ahead | None = None,
) -> Material:
    """Read the histories of runs, and find the quantities.

    Args:
        configured: runs without histories.
        metrics: patterns of the tags to compare; empty takes what the classes declare.
        given: folders that were given by name, which are never left out.
        ahead: histories that other processes are reading.

    Raises:
        ValueError: if a history is broken, nothing can be compared, or a pattern matches nothing.
    """
    configured, notes = _with_rows([with_known_callbacks(run) for run in configured])
    declared, figures = _declared(configured)
    reader = _Reader(declared, figures, metrics, ahead or Ahead())
    named = {path.resolve() for path in given}
    runs, quantities = [], list(declared)
    with _without_collection():
        read = [_with_undeclared(reader.read(run), declared, reader) for run in configured]
    for run, found in read:
        if not run.histories:
            continue
        if _began_only(run) and run.folder.resolve() not in named and len(configured) > 1:
            notes.append(f"left out: {run.folder}: no config.yaml, and no row after step 0")
            continue
        runs.append(_placed(run))
        quantities += found
    if not runs:
        listed = ", ".join(str(run.folder) for run in configured)
        raise ValueError(
            f"RUN: no run in {listed:.300} has anything to compare: no history holds a quantity "
            "that its class declares. Name a tag of its histories with --metric, or train with "
            "MetricHistory, or a diagnostic that has a headline."
        )
    quantities = _with_tests(named_apart(quantities), runs)
    quantities = [q for q in quantities if q.headline.order < LATE or is_measured(q, runs)]
    if metrics:
        quantities = of_patterns(metrics, runs, quantities)
    return Material(
        runs, quantities, figures, [*_not_imported(runs), *_not_recorded(declared, runs), *notes]
    )


def _with_rows(runs: Sequence[Run]) -> tuple[Sequence[Run], list[str]]:
    """The runs without those that have just begun, and a note on each of these.

    If all runs have just begun, they stay, and reading them raises the error.
    """
    kept = [run for run in runs if any(f.stat().st_size for f in history_files(run.folder))]
    if not kept:
        return runs, []
    left = [run.folder for run in runs if run not in kept]
    return kept, [f"left out: {folder}: its histories have no row yet" for folder in left]


def _not_recorded(declared: Sequence[Quantity], runs: Sequence[Run]) -> list[str]:
    """Notes on headlines of a person's own classes whose tag no row of their history has."""
    notes = []
    for quantity in declared:
        if quantity in our_quantities() or callable(quantity.headline.tag):
            continue
        rows = [found for run in runs if (found := run.histories.get(quantity.history))]
        tag = quantity.tag({})
        if not rows or any(t == tag or t.startswith(f"{tag}/") for r in rows for t in tags_of(r)):
            continue
        layers = "/L00, .." if quantity.headline.layers else ""
        notes.append(
            f"not recorded: {quantity.text}: no row of {quantity.history}.jsonl has the tag "
            f"{tag}{layers}, which the headline {quantity.headline.name!r} of its class names"
        )
    return notes


def _not_imported(runs: Sequence[Run]) -> list[str]:
    """A note on classes that cannot be imported, whose declarations are unknown."""
    paths = dict.fromkeys(p for r in runs for p in (r.class_path, r.task, *r.callbacks) if p)
    missing = [path for path in paths if found_class(path) is None]
    if not missing:
        return []
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return [
        f"not imported: {', '.join(missing[:3])}{more}: what they declare is unknown, and numbers "
        "stand under their tags. Run the command where their modules lie, or set PYTHONPATH"
    ]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Read without garbage collection, which would look at all of torch again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Reader:
    """Reads of each run the histories, and of each history the tags, that are compared."""

    def __init__(
        self,
        declared: Sequence[Quantity],
        figures: _Figures,
        metrics: Sequence[str],
        ahead: Ahead,
    ) -> None:
        self.metrics = metrics
        self.ahead = ahead
        self.drawn = {history for history, _ in figures}
        self.readers: dict[str, list[Quantity]] = {METRICS: [], TEST: []}
        for quantity in declared:
            self.readers.setdefault(quantity.history, []).append(quantity)

    def read(self, run: Run) -> Run:
        names = {*self.readers, *self.drawn}
        if self.metrics:
            names |= {path.stem for path in history_files(run.folder)}
        paths = [run.folder / f"{name}.jsonl" for name in sorted(names)]
        found = {path.stem: self.history(path) for path in paths if path.is_file()}
        return replace(run, histories=found)

    def history(self, path: Path) -> Columns:
        keep, found = self.keeps(path.stem), self.ahead.take(path)
        return read_ordered_columns(path, keep) if found is None else found.only(keep)

    def keeps(self, history: str) -> Callable[[str], bool]:
        """Whether a tag of a history is compared."""
        readers = self.readers.get(history, [])
        if history in (METRICS, TEST) or history in self.drawn:
            return lambda tag: True
        if not readers and not self.metrics:  # of a class that cannot be imported
            return lambda tag: True
        return lambda tag: (
            any(quantity.may_need(tag) for quantity in readers)
            or any(fnmatchcase(tag, pattern) for pattern in self.metrics)
        )


def _declared(runs: Sequence[Run]) -> tuple[list[Quantity], _Figures]:
    """The quantities and figures that the classes of the runs declare."""
    quantities, figures = list(our_quantities()), our_figures()
    kinds = dict.fromkeys((run.task, run.callbacks, run.metrics) for run in runs)
    of_kind = {(run.task, run.callbacks, run.metrics): run for run in runs}
    for run in (of_kind[kind] for kind in kinds):
        classes = kinds_of(run)
        quantities += [*declared_quantities(classes), *map(metric_quantity, run.metrics)]
        figures += [entry for entry in declared_figures(classes) if entry not in figures]
    return named_apart(quantities), figures


def _with_undeclared(
    run: Run, declared: Sequence[Quantity], reader: _Reader
) -> tuple[Run, list[Quantity]]:
    """The run with histories of classes that cannot be imported, and their first quantities.

    Also the metrics of a task of one's own that declares no headline.
    """
    found: list[Quantity] = []
    if not run.class_path or any(found_class(path) is None for path in run.callbacks):
        histories = dict(run.histories)
        known = known_histories(run) | {TEST}
        for path in history_files(run.folder):
            if path.stem in known:
                continue
            try:
                histories.setdefault(path.stem, reader.history(path))
            except ValueError:  # not what a diagnostic writes
                continue
            found += as_they_are(path.stem, histories, declared)
        run = replace(run, histories=histories)
    if not run.class_path or (run.task and not declares_metrics(run.task)):
        known_metrics = [*declared, *of_loaders(declared, [run])]
        tags = as_they_are(METRICS, run.histories, known_metrics)
        own = run.task and found_class(run.task) is not None
        found += [metric_quantity(tag.name) if own else tag for tag in tags]
    return run, found


def _began_only(run: Run) -> bool:
    """Whether a folder without a configuration is what a start that failed has left behind."""
    return not run.class_path and run.seed is None and _last_step(run.histories) == 0


def _last_step(histories: Mapping[str, Sequence[object]]) -> int:
    return max(int(rows.step[-1]) for rows in histories.values() if isinstance(rows, Columns))


def _placed(run: Run) -> Run:
    """The run; with optimizer steps in place of epochs if an epoch has several rows.

    Also if its rows tell no epochs.
    """
    histories = {n: rows for n, rows in run.histories.items() if isinstance(rows, Columns)}
    told = any(rows.epoch[-1] > 0 for rows in histories.values())
    within = any((rows.epoch[1:] == rows.epoch[:-1]).any() for rows in histories.values())
    steps = {int(step) for rows in histories.values() for step in (rows.step[0], rows.step[-1])}
    if (told and not within) or len(steps) < 2:
        return run
    by_steps = {name: rows.by_steps() for name, rows in histories.items()}
    return replace(run, histories=by_steps, place=STEPS, measured=run.histories)


def _with_tests(quantities: Sequence[Quantity], runs: Sequence[Run]) -> list[Quantity]:
    """The quantities, each metric with that on test data behind it, and those of loaders."""
    found = []
    tested = any(TEST in run.histories for run in runs)
    for quantity in quantities:
        found += [quantity, *(of_test_data([quantity]) if tested else ())]
    return named_apart([*found, *of_loaders(found, runs)])
