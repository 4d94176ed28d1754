"""Notes on what the runs of a row lack: their end, histories, rows, and defined values."""

import math
from collections.abc import Sequence

from lit_credit.comparison.quantities import METRICS, TEST, Quantity, ends_of
from lit_credit.comparison.table import Summary
from lit_credit.runs.ended import following, last_place
from lit_credit.runs.run_folder import Run, is_diagnosis

__all__ = ["incomplete"]


def incomplete(summary: Summary, quantities: Sequence[Quantity]) -> list[str]:
    """One line for everything that is incomplete in the runs of a group."""
    notes = [note for q in quantities if (note := _undefined(summary, q))]
    anywhere = {name for run in summary.runs for name in run.histories}
    histories = dict.fromkeys(quantity.history for quantity in quantities)
    for run in summary.runs:
        which = f"{summary.label}, seed {run.seed} ({run.folder})"
        if run.unfinished:
            at = f"epoch {run.last_epoch} of {run.max_epochs}"
            if (run.max_epochs or -1) < 0:
                at = f"step {run.last_step} of {run.max_steps}"
            notes.append(f"unfinished: {which}: {at}, in no number of the row but n")
        elif is_diagnosis(run.folder) and 0 < run.last_epoch < (run.max_epochs or 0):
            notes.append(
                f"checkpoints: {which}: the last is of epoch {run.last_epoch} of {run.max_epochs}"
            )
        for name in histories:
            rows = run.histories.get(name)
            if rows is None and name in anywhere:
                notes.append(f"missing: {which}: no {name}.jsonl, other seeds have one")
            elif rows and name != TEST and _lacks_rows(run, name):
                notes.append(f"stops early: {which}: {name}.jsonl ends at {_end(run, name)}")
        notes += [f"stops early: {which}: {text}" for text in _ending_early(run, quantities)]
    return notes


def _lacks_rows(run: Run, name: str) -> bool:
    """Whether a history ends before a row that was due: by steps, or after one row by epochs."""
    rows = {name: (run.measured or run.histories)[name]}
    if int(rows[name][-1]["step"]) >= run.last_step:
        return False
    if last_place(rows, "step") > int(rows[name][0]["step"]):
        return following(rows, "step") <= run.last_step
    return last_place(rows, "epoch") < run.last_epoch


def _ending_early(run: Run, quantities: Sequence[Quantity]) -> list[str]:
    """The quantities that the last rows of their history lack."""
    found = []
    for quantity in quantities:
        steps = quantity.line(run.histories, "step").places
        if len(steps) < 2:
            continue
        last, distance = int(steps[-1]), int(steps[-1] - steps[-2])
        if last + distance <= int(run.histories[quantity.history][-1]["step"]):
            found.append(f"the last {quantity.text} is of step {last}")
    return found


def _undefined(summary: Summary, quantity: Quantity) -> str:
    """A note on the seeds whose value at the end is not finite; or ""."""
    ends = {run.seed: x for run in summary.runs for x in ends_of([run], quantity)}
    seeds = [str(seed) for seed, value in ends.items() if not math.isfinite(value)]
    # A diagnostic may be undefined for good reasons under a rule, a metric of the task is not.
    if not seeds or (len(seeds) == len(ends) and quantity.history != METRICS):
        return ""
    return (
        f"undefined: {summary.label}: {quantity.text} is NaN or infinite at the end of seed "
        f"{', '.join(seeds)}, and so is the mean"
    )


def _end(run: Run, name: str) -> str:
    last = (run.measured or run.histories)[name][-1]
    return f"epoch {last['epoch']}" if run.last_epoch else f"step {last['step']}"
