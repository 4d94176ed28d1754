"""Runs side by side: ``lit-credit compare RUN... --out DIR``."""

import csv
import io
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from lit_credit.callbacks.heads.circuit_figure import circuit_figure
from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.functional import MeanAndSd, growth, mean_and_sd, scale_flags
from lit_credit.plotting import comparison_figure
from lit_credit.runs.files import check_folder, reason_of, write_files
from lit_credit.runs.run_folder import HISTORIES, Run, find_runs, read_run
from lit_credit.runs.series import Histories, run_curve
from lit_credit.utils.numbers import number_text
from lit_credit.utils.paths import local_path

__all__ = ["compare", "main"]

BASELINE = "FrozenUnits"
_ORDER = ["BP", "FA", "BlockFA", "DFA"]
_OF_LOADERS = dict.fromkeys(("accuracy", "loss"), ".3f")
_ENDS = {
    **_OF_LOADERS,
    **dict.fromkeys(("ood_error", "id_error", "cosine"), ".3f"),
    **dict.fromkeys(("z", "match", "mismatch"), ".2f"),
}
"""Quantities of which the end of training is shown, mean and spread over runs, and in what form."""
_SCALES = [
    *("h_first", "h_last", "h_last_sd", "growth", "g_first", "g_last", "g_last_sd"),
    *("above_frozen", "scale_unstable", "depth_unused"),
]
_FLAGS = {
    "scale": ("scale_unstable", "|h_L| grew more than 50x"),
    "depth": ("depth_unused", f"accuracy less than 0.02 above that of {BASELINE}"),
}


@dataclass(frozen=True)
class Summary:
    """What the runs of one experiment say together; ``values`` has one number a column."""

    label: str
    runs: list[Run]
    values: dict[str, float]


def compare(runs: Sequence[str | Path], out: str | Path) -> str:
    """Compare runs by rule: a figure, a table as CSV, and the same table as text.

    Runs that differ only by seeds and paths are one row. A row's numbers are means over its runs,
    each at its last epoch; ``growth`` is the mean of |h_L| at the end over its mean at epoch 0.

    Args:
        runs: run folders, or folders that contain some at any depth.
        out: folder for ``comparison.png`` and ``comparison.csv``, and where circuits were matched
            for ``circuits.png`` and ``circuits_log.png``; older ones are replaced.

    Returns:
        The table, mean ± sample standard deviation, and a line for whatever is incomplete.

    Raises:
        ValueError: before anything is written, if there are no runs, a run cannot be read, a row or
            a configuration is broken, two runs have the same seeds, or ``out`` cannot be written.
    """
    folder = Path(local_path(out, "--out"))
    check_folder(folder, "Give another --out.")
    groups = _group([read_run(folder) for folder in find_runs(runs)])
    summaries = _summarise(groups)
    subjects = list(dict.fromkeys(run.subject for s in summaries for run in s.runs))
    title = subjects[0] if len(subjects) == 1 else ""
    histories = {s.label: [run.histories for run in s.runs] for s in summaries}
    ends = _ends([run for summary in summaries for run in summary.runs])
    notes = [note for summary in summaries for note in _notes(summary)]
    if any("circuit_matching" in seed for seeds in histories.values() for seed in seeds):
        notes.append("circuits over steps: circuits.png, circuits_log.png")
    text = "\n".join([*_table(summaries, ends), *_legend(summaries), *notes])
    files = {"comparison.csv": _csv(summaries, ends), **_figures(histories, title)}
    try:
        write_files(folder, files)
    except OSError as error:
        raise ValueError(
            f"--out: {folder} cannot be written: {reason_of(error)}. Give another --out."
        ) from error
    return text


def _figures(histories: Mapping[str, Sequence[Histories]], title: str) -> dict[str, bytes]:
    """The figures as PNG, by the names of their files."""
    # A dollar sign in a folder's name is no mathematics.
    runs = {label.replace("$", r"\$"): seeds for label, seeds in histories.items()}
    title = title.replace("$", r"\$")
    figures: dict[str, tuple[int, Callable[[], Figure]]] = {
        "comparison.png": (200, lambda: comparison_figure(runs, title=title))
    }
    if any("circuit_matching" in seed for seeds in runs.values() for seed in seeds):
        for name, log in (("circuits.png", False), ("circuits_log.png", True)):
            figures[name] = (150, partial(circuit_figure, runs, log_steps=log, title=title))
    return {name: _png(name, draw, dpi) for name, (dpi, draw) in figures.items()}


def _png(name: str, draw: Callable[[], Figure], dpi: int) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # Of axes that reach from the smallest number to the largest, and of missing glyphs.
            warnings.simplefilter("ignore")
            draw().savefig(buffer, dpi=dpi)
    except Exception as error:  # whatever matplotlib makes of numbers that it cannot place
        raise ValueError(
            f"{name} cannot be drawn from these histories: {type(error).__name__}: {error}. "
            "Compare fewer runs to find the one."
        ) from error
    return buffer.getvalue()


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 where the runs cannot be compared.

    Args:
        args: what follows ``lit-credit compare``; by default the process's arguments.
    """
    parser = ShortErrorArguments("lit-credit compare", description="Compare runs by rule.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or a folder that contains runs"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="for comparison.png and comparison.csv"
    )
    options = parser.parse_args(args)
    try:
        out = local_path(options.out, "--out")
        text = compare(options.runs, out)
    except (ValueError, OSError) as error:
        print(f"lit-credit compare: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(text)
    print(f"\nWritten: {Path(out, 'comparison.png')}, {Path(out, 'comparison.csv')}")
    return 0


def _group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by label, in the order of the rules, each group in the order of its seeds."""
    experiments: dict[str, list[Run]] = {}
    for run in runs:
        group = experiments.setdefault(run.experiment, [])
        twin = next((other for other in group if other.seeds == run.seeds), None)
        if twin is not None and run.seed is not None:
            raise ValueError(
                f"RUN: two runs of {run.rule} with seed {run.seed} and one configuration: "
                f"{str(twin.folder)!r} and {str(run.folder)!r}. Leave one of them out."
            )
        group.append(run)
    labelled: dict[str, list[Run]] = {}
    for rule in sorted({run.rule for run in runs}, key=_rank):
        groups = [group for group in experiments.values() if group[0].rule == rule]
        for label, group in zip(_labels(rule, groups), groups, strict=True):
            labelled[label] = sorted(group, key=lambda run: (run.seed is None, run.seed or 0))
    return labelled


def _rank(rule: str) -> tuple[int, str]:
    if rule in _ORDER:
        return _ORDER.index(rule), rule
    return len(_ORDER) + (rule == BASELINE), rule


def _labels(rule: str, groups: Sequence[Sequence[Run]]) -> list[str]:
    """The rule's name, with the parts of the path that tell its experiments apart if need be."""
    if len(groups) == 1:
        return [rule]
    paths = [[run.folder.resolve().parts for run in group] for group in groups]
    shared = set.intersection(*(set(parts) for group in paths for parts in group))
    names = []
    for runs, group in zip(groups, paths, strict=True):
        seeds = {f"seed_{run.seed}" for run in runs}
        everywhere = set.intersection(*map(set, group)) - shared - seeds
        names.append("/".join(part for part in group[0] if part in everywhere))
    if len(set(names)) < len(names) or not all(names):
        firsts = [group[0] for group in paths]
        names = ["/".join(part for part in parts if part not in shared) for parts in firsts]
    if len(set(names)) < len(names):
        names = [str(group[0].folder) for group in groups]
    # A folder's name need not be text.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return [f"{rule} ({name})" for name in names]


def _ends(runs: Sequence[Run]) -> dict[str, str]:
    """What is shown of these runs' ends: further loaders (``accuracy/ood``) stand after the first.

    Each loader logs a loss, so the losses tell their names; those of metrics may have slashes too.
    """
    tags = {
        tag: None
        for run in runs
        for row in run.histories.get("metrics", [])
        for tag in row["values"]
    }
    loaders = [tag.removeprefix("val/loss") for tag in tags if tag.startswith("val/loss/")]
    further = {f"{name}{end}": form for end in loaders for name, form in _OF_LOADERS.items()}
    return _OF_LOADERS | further | _ENDS


def _summarise(groups: dict[str, list[Run]]) -> list[Summary]:
    shown = _ends([run for runs in groups.values() for run in runs])
    accuracy = {label: _end(runs, "accuracy") for label, runs in groups.items()}
    baselines: dict[str, list[str]] = {}
    for label, runs in groups.items():
        if runs[0].rule == BASELINE:
            baselines.setdefault(runs[0].setting, []).append(label)
    summaries = []
    for label, runs in groups.items():
        # Of two baselines for one net neither is the baseline.
        same = baselines.get(runs[0].setting, []) if runs[0].rule != BASELINE else []
        frozen = accuracy[same[0]].mean.item() if len(same) == 1 else math.nan
        summaries.append(Summary(label, runs, _values(runs, shown, accuracy[label], frozen)))
    return summaries


def _values(
    runs: Sequence[Run], shown: Mapping[str, str], accuracy: MeanAndSd, frozen: float
) -> dict[str, float]:
    ends = [_end(runs, quantity) for quantity in shown]
    h, g = (_end(runs, quantity) for quantity in ("h", "g"))
    h_first, g_first = (_start(runs, quantity) for quantity in ("h", "g"))
    grown = growth(h.mean, h_first.mean).item()
    flags = scale_flags(grown, accuracy.mean.item(), frozen)
    above = accuracy.mean - frozen
    cells = (*(x for end in ends for x in end), h_first.mean, *h, grown, g_first.mean, *g, above)
    numbers = [*map(float, cells), flags.scale_unstable, flags.depth_unused]
    return dict(zip(_columns(shown), numbers, strict=True))


def _end(runs: Sequence[Run], quantity: str) -> MeanAndSd:
    """Over the runs that measured it, each at its own last epoch."""
    curves = [run_curve(run.histories, quantity) for run in runs]
    return mean_and_sd([curve[max(curve)] for curve in curves if curve])


def _start(runs: Sequence[Run], quantity: str) -> MeanAndSd:
    """Over the runs that measured it, at epoch 0."""
    curves = [run_curve(run.histories, quantity) for run in runs]
    return mean_and_sd([curve.get(0, math.nan) for curve in curves if curve])


def _columns(shown: Mapping[str, str]) -> list[str]:
    return [*(f"{name}{part}" for name in shown for part in ("", "_sd")), *_SCALES]


def _csv(summaries: Sequence[Summary], shown: Mapping[str, str]) -> bytes:
    columns = _columns(shown)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["rule", "n", *columns, "epochs", "seeds"])
    for s in summaries:
        cells = ["" if math.isnan(s.values[c]) else f"{s.values[c]:.8g}" for c in columns]
        epochs = min(run.last_epoch for run in s.runs)
        seeds = " ".join("" if run.seed is None else str(run.seed) for run in s.runs)
        writer.writerow([s.label, len(s.runs), *cells, epochs, seeds])
    return file.getvalue().encode()


def _table(summaries: Sequence[Summary], shown: Mapping[str, str]) -> list[str]:
    """Lines of equal width; columns that are undefined for every rule are left out."""
    rows: list[dict[str, str]] = []
    for s in summaries:
        v = s.values
        ends = {_head(n): _pair(v[n], v[f"{n}_sd"], form) for n, form in shown.items()}
        row = {
            **ends,
            "|h_L| start": number_text(v["h_first"]),
            "|h_L| end": _pair(v["h_last"], v["h_last_sd"]),
            "growth": number_text(v["growth"]),
            "|g_L| start": number_text(v["g_first"]),
            "|g_L| end": _pair(v["g_last"], v["g_last_sd"]),
            "above frozen": number_text(v["above_frozen"], "+.3f"),
            "flags": ", ".join(_raised(s)) or "-",
        }
        rows.append({"rule": s.label, "n": str(len(s.runs)), **row})
    heads = [head for head in rows[0] if any(row[head] != "n/a" for row in rows)]
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    lines = [heads, *([row[head] for head in heads] for row in rows)]
    return [
        "  ".join(
            cell.ljust(width) if head in ("rule", "flags") else cell.rjust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def _head(quantity: str) -> str:
    return quantity.replace("_", " ", 1) if quantity in _ENDS else quantity.replace("/", " ", 1)


def _raised(summary: Summary) -> list[str]:
    return [name for name, (column, _) in _FLAGS.items() if summary.values[column] == 1]


def _legend(summaries: Sequence[Summary]) -> list[str]:
    raised = {name for s in summaries for name in _raised(s)}
    return [f"flag {name}: {text}" for name, (_, text) in _FLAGS.items() if name in raised]


def _pair(mean: float, sd: float, form: str = ".3g") -> str:
    if math.isnan(mean):
        return "n/a"
    return f"{mean:{form}} ± {number_text(sd, '.2g' if form == '.3g' else form)}"


def _notes(summary: Summary) -> list[str]:
    """What is incomplete in the runs of one experiment."""
    notes = []
    anywhere = {name for run in summary.runs for name in run.histories}
    for run in summary.runs:
        which = f"{summary.label}, seed {run.seed} ({run.folder})"
        if run.unfinished:
            notes.append(f"unfinished: {which}: epoch {run.last_epoch} of {run.max_epochs}")
        for name in HISTORIES:
            rows = run.histories.get(name)
            if rows is None and name in anywhere:
                notes.append(f"missing: {which}: no {name}.jsonl, other seeds have one")
            elif rows and (last := rows[-1]["epoch"]) < run.last_epoch:
                notes.append(f"stops early: {which}: {name}.jsonl ends at epoch {last}")
    return notes
