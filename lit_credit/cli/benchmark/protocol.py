"""Running the benchmark: search, choice by validation, seeds of the choice, one test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lit_credit.cli.benchmark.choice import (
    Choice,
    Place,
    best_of_studies,
    earlier_rows,
    median_best,
    run_rows,
    slug,
    trial_rows,
)
from lit_credit.cli.benchmark.configurations import final_config, search_config
from lit_credit.cli.benchmark.direction import find_direction
from lit_credit.cli.benchmark.results import Results
from lit_credit.cli.benchmark.search import draw_trials
from lit_credit.cli.benchmark.suites import Entry, Suite, find_entries, read_entries, read_suite
from lit_credit.cli.benchmark.summaries import shipped_rows
from lit_credit.cli.loading import say_loading
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.executors import Executor, LocalProcesses, default_jobs, run_all
from lit_credit.cli.sweep.grid import Point
from lit_credit.cli.sweep.own_code import code_notes
from lit_credit.cli.sweep.plan import asked_configuration, planned
from lit_credit.cli.sweep.progress import Progress
from lit_credit.runs.files import check_folder
from lit_credit.runs.lock import hold_folder
from lit_credit.utils.paths import local_path

__all__ = ["BASELINES", "benchmark"]

BASELINES = ("BP", "FrozenUnits")
"""Rules that run beside a rule of one's own: the upper and the lower end of what credit brings."""
_SEARCH_SEED = 1000
"""Seed of a trial, plus the number of its study; the seeds of the choice are others."""
_NO_CHANGE = ("root", "download", "num_workers", "accelerator", "enable_progress_bar")
"""Last parts of options of ``fit`` that do not change what a rule reaches."""


def benchmark(
    suite: str | Path = "digits",
    rules: Sequence[str] | None = None,
    out: str | Path = "runs/benchmark",
    *,
    knob: str = "",
    values: Sequence[Any] = (),
    words: Sequence[str] = (),
    jobs: int | None = None,
) -> Results:
    """Tune rules under one budget, choose by validation, and test the choice once with each seed.

    Every rule gets the same quasi-random points of one search space: the learning rate, the weight
    decay, the learning rate of the units relative to the readout, and one knob of its own. A study
    is a search of a few trials; its best trial is that with the best validation metric at the end.
    The study whose best is the median of the studies is reported: its configuration is trained with
    several seeds and tested once at the end of each run. A study in which no trial has learned is
    the worst one; a rule whose median study is such a study has no row.

    Finished runs are not repeated: the same call continues after an interruption.

    Args:
        suite: a suite that ships with lit_credit, or a YAML file of the same form.
        rules: rows of the benchmark, import paths of classes, or YAML files with rows; None takes
            those of the suite. Rules that are given run beside BP and FrozenUnits, and the
            measured rows that ship with lit_credit are shown below.
        out: folder of the runs and tables, one folder per suite.
        knob: argument to search of a class that is given by its import path.
        values: the values of the knob.
        words: further arguments of ``lit-credit fit`` for every run.
        jobs: number of runs at a time; by default one per CPU.

    Returns:
        The results, also written to ``out/SUITE``.

    Raises:
        ValueError: before any run, if an argument or one of the configurations is wrong.

    Reference:
        Dahl et al., Benchmarking Neural Network Training Algorithms, 2023, arXiv 2306.07179
        (tuning within a fixed budget of trials, the median of studies).
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs: {jobs}. Expected a number of runs at a time, 1 or more.")
    chosen = read_suite(suite)
    entries = _entries(chosen, rules, knob, values)
    others = "" if rules is None else _other_protocol(chosen, words)
    folder = Path(local_path(out, "--out"), chosen.name)
    check_folder(folder, "Give another --out.")
    place = LocalProcesses(jobs or default_jobs())
    with hold_folder(folder):
        chosen = _directed(chosen, folder, words)
        print(f"Search: {chosen.studies} x {chosen.trials} trials of each rule.", flush=True)
        progress = Progress()
        places = _plan(chosen, entries, folder, words, progress)
        before = _finished(places)
        _run([cell for found in places for cell in found.cells], place, progress)
        print(f"The choices, with {len(chosen.seeds)} seeds each.", flush=True)
        progress = Progress()
        choices = _choose(chosen, places, folder, words)
        _run([cell for choice in choices for cell in choice.cells], place, progress)
        runs, searched = earlier_rows(folder, chosen, places)
        results = Results(
            chosen.name,
            chosen.metric,
            [*(row for c in choices for row in run_rows(chosen, c)), *runs],
            [*(row for p in places for row in trial_rows(chosen, p)), *searched],
            own=rules is not None and not others,
            failed=[*_without_row(chosen, places, choices), *_without_seeds(choices)],
            notes=_notes(others, runs, [*before, *_finished(choices)]),
            better=chosen.better or None,
        )
        results.write(folder)
    return results


def _notes(
    others: str,
    earlier: Sequence[Mapping[str, Any]],
    finished: Sequence[tuple[Path, Mapping[str, str]]],
) -> list[str]:
    """Further lines below the tables."""
    notes = [f"The rows that ship with lit_credit are left out: {others}"] if others else []
    if earlier:
        names = ", ".join(dict.fromkeys(str(row["rule"]) for row in earlier))
        notes.append(f"Measured by an earlier call with this --out: {names}.")
    return notes + code_notes(finished)


def _finished(places: Sequence[Place | Choice]) -> list[tuple[Path, Mapping[str, str]]]:
    """Folder and present source files of each finished run."""
    cells = [cell for place in places for cell in place.cells]
    return [(cell.folder, cell.code) for cell in cells if cell.result()]


def _entries(
    suite: Suite, rules: Sequence[str] | None, knob: str, values: Sequence[Any]
) -> list[Entry]:
    known = read_entries()
    if rules is None:
        return [known[name] for name in suite.rules]
    found = {name: known[name] for name in BASELINES}
    for rule in rules:
        for name, entry in find_entries(rule, knob, values).items():
            if (taken := found.get(name)) not in (None, entry):
                raise ValueError(
                    f"--rule: {rule}: the row {name!r} is that of {taken.class_path} already. Give "
                    "it another name in a YAML file, such as "
                    f"`My {name}: {{model: {{class_path: {entry.class_path}}}}}`."
                )
            found[name] = entry
    return list(found.values())


def _other_protocol(suite: Suite, words: Sequence[str]) -> str:
    """Why rows that ship with lit_credit were measured under another protocol; "" if not."""
    if not shipped_rows(suite.name):
        return ""
    if not suite.ships:
        return f"this suite {suite.name!r} is not the one that ships with it."
    options = [word.partition("=")[0].removeprefix("--") for word in words if word[:2] == "--"]
    changed = [option for option in options if option.rpartition(".")[2] not in _NO_CHANGE]
    return f"--{changed[0]} may change what a rule reaches." if changed else ""


# Planning


def _directed(suite: Suite, folder: Path, words: Sequence[str]) -> Suite:
    """The suite with the direction of its metric, which the tasks of all runs declare."""
    tasks = {}
    for name, config in suite.tasks.items():
        path = _search_file(folder, name, config)
        with say_loading():
            asked = asked_configuration([f"--config={path}", *words])
        tasks[name] = asked["model"]["init_args"]["task"]
    return replace(suite, better=find_direction(suite, tasks))


def _search_file(folder: Path, task: str, config: Mapping[str, Any]) -> Path:
    return _written(folder / task / "search.yaml", search_config(config))


def _plan(
    suite: Suite,
    entries: Sequence[Entry],
    folder: Path,
    words: Sequence[str],
    progress: Progress,
) -> list[Place]:
    pairs = [
        (task, entry)
        for task, config in suite.tasks.items()
        for entry in entries
        if entry.fits(config)
    ]
    places, budget = [], suite.studies * suite.trials
    for number, (task, entry) in enumerate(pairs):
        progress.planning(number * budget, len(pairs) * budget)
        path = _search_file(folder, task, suite.tasks[task])
        trials = draw_trials(entry, suite.studies, suite.trials)
        points = [
            Point(
                f"{task}/{slug(entry.name)}/search/study_{trial.study}_trial_{trial.number}",
                None,
                {**trial.overrides(entry), "seed_everything": _SEARCH_SEED + trial.study},
            )
            for trial in trials
        ]
        cells = planned(points, None, _at_the_end(path, words), folder)
        places.append(Place(task, entry, trials, cells))
    return places


def _at_the_end(path: Path, words: Sequence[str]) -> list[str]:
    """The words of a trial, which is validated at its end even if words change its length."""
    base = [f"--config={path}", *words]
    if not words:
        return base
    trainer = asked_configuration(base)["trainer"]
    epochs = trainer["max_epochs"]
    if epochs is None or epochs < 1 or epochs == trainer["check_val_every_n_epoch"]:
        return base
    return [*base, f"--trainer.check_val_every_n_epoch={epochs}"]


def _without_row(suite: Suite, places: Sequence[Place], choices: Sequence[Choice]) -> list[str]:
    known = {(choice.place.task, choice.place.entry.name) for choice in choices}
    return [
        f"{place.task}, {place.entry.name}: no row, because {_not_learned(suite, place)}"
        for place in places
        if (place.task, place.entry.name) not in known
    ]


def _not_learned(suite: Suite, place: Place) -> str:
    """Why the median study has no configuration to report."""
    bests = best_of_studies(suite, place)
    without = [study for study, best in bests.items() if best is None]
    why = "no trial has learned."
    if len(without) < len(bests):
        listed = ", ".join(map(str, without))
        why = (
            f"no trial of the median study has learned (of {len(bests)} studies, these have no "
            f"such trial: {listed})."
        )
    cells = [
        cell
        for trial, cell in zip(place.trials, place.cells, strict=True)
        if trial.study in without
    ]
    failed = next((cell for cell in cells if cell.result() is None), None)
    if failed is not None:
        return f"{why} {_reason(failed)}"
    values = (cells[0].result() or {"values": {}})["values"]
    tags = [f"val/{name}" for name in dict.fromkeys(("loss", suite.metric))]
    ends = " and ".join(f"{tag} {values.get(tag, 'absent')}" for tag in tags)
    return f"{why} {cells[0].name} ends with {ends}."


def _without_seeds(choices: Sequence[Choice]) -> list[str]:
    found = []
    for choice in choices:
        missing = [cell for cell in choice.cells if cell.result() is None]
        if missing:
            seeds = ", ".join(str(cell.seed) for cell in missing)
            place = choice.place
            found.append(
                f"{place.task}, {place.entry.name}: seed {seeds} of the choice failed. "
                f"{_reason(missing[0])}"
            )
    return found


def _choose(
    suite: Suite, places: Sequence[Place], folder: Path, words: Sequence[str]
) -> list[Choice]:
    choices = []
    for place in places:
        trial = median_best(suite, place)
        if trial is None:  # a line below the tables says so
            continue
        config = final_config(suite.tasks[place.task])
        path = _written(folder / place.task / "final.yaml", config)
        base = [f"--config={path}", *words]
        name = f"{place.task}/{slug(place.entry.name)}/final"
        point = Point(name, None, trial.overrides(place.entry))
        cells = planned([point], list(suite.seeds), base, folder)
        choices.append(Choice(place, trial, cells))
    return choices


def _written(path: Path, config: Mapping[str, Any]) -> Path:
    text = yaml.safe_dump(dict(config), sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


# Running


def _run(cells: Sequence[Cell], place: Executor, progress: Progress) -> None:
    """Run the unfinished cells, and print how far they are."""
    for cell in cells:
        cell.refuse_another()
    todo = [cell for cell in cells if cell.result() is None]
    before = len(cells) - len(todo)
    progress.planned(len(cells), before, place.jobs)
    for number, (cell, trouble) in enumerate(run_all(todo, place), before + 1):
        progress.ended(number, cell, cell.result(), trouble)


def _reason(cell: Cell) -> str:
    lines = cell.log.read_text(errors="replace").splitlines() if cell.log.exists() else []
    return f"{cell.log} ends: {lines[-1] if lines else 'nothing'}"
