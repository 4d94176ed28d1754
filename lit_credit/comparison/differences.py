"""Differences to a baseline: paired by seed, with intervals and Holm's correction."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lit_credit.comparison.groups import Group
from lit_credit.comparison.quantities import METRICS, TEST, Quantity, end_by_seed, ends_of
from lit_credit.comparison.statistics import (
    FEWEST,
    Difference,
    detectable_difference,
    holm,
    paired_difference,
    welch_difference,
)
from lit_credit.comparison.texts import Table, readable_form
from lit_credit.runs.run_folder import Run
from lit_credit.utils.numbers import number_text

__all__ = [
    "BaselineDifference",
    "difference_columns",
    "difference_notes",
    "difference_table",
    "differences_to",
    "is_judged",
    "without_difference",
]

PAIRED, WELCH = "paired by seed", "Welch, unpaired"
_TIMES = "×"  # noqa: RUF001


@dataclass(frozen=True)
class BaselineDifference:
    """How one group differs from the baseline in one quantity.

    Attributes:
        label: the group.
        baseline: the baseline's label.
        quantity: the quantity; if it is logarithmic, all numbers are log10 of a ratio.
        difference: the difference of the values at the end of training.
        p_holm: p value after Holm's correction over the groups, for this quantity.
        resolves: smallest true difference that the pairs detect at 80 % power; NaN if unpaired.
        averaged: labels of the two groups in which several runs of a seed count as one.
    """

    label: str
    baseline: str
    quantity: Quantity
    difference: Difference
    p_holm: float = math.nan
    resolves: float = math.nan
    averaged: tuple[str, ...] = ()


def is_judged(quantity: Quantity) -> bool:
    """Whether a difference is shown that nobody asked for by name.

    That is of quantities of which large or small values are better, and of metrics of the task.
    """
    return quantity.headline.better != "neither" or quantity.history in (METRICS, TEST)


def differences_to(
    baseline: str, groups: Mapping[str, Group], quantities: Iterable[Quantity]
) -> list[BaselineDifference]:
    """The differences of all other groups to the baseline, by quantity.

    Args:
        baseline: label of the baseline.
        groups: groups by label.
        quantities: quantities to compare; those that the baseline has not measured are left out.
    """
    found: list[BaselineDifference] = []
    for quantity in quantities:
        if not ends_of(groups[baseline].runs, quantity):
            continue
        sides = {
            label: (_side(group, quantity), _side(groups[baseline], quantity))
            for label, group in groups.items()
            if label != baseline and ends_of(group.runs, quantity)
        }
        pairs = {label: _difference(*two, quantity) for label, two in sides.items()}
        corrected = holm([difference.p for difference in pairs.values()])
        found += [
            BaselineDifference(
                label,
                baseline,
                quantity,
                difference,
                p,
                _resolves(difference),
                _averaged((label, baseline), sides[label], quantity, difference),
            )
            for (label, difference), p in zip(pairs.items(), corrected, strict=True)
        ]
    return found


_Side = Sequence[Run]
"""The runs of a group that measured a quantity to their end."""


def _side(group: Group, quantity: Quantity) -> _Side:
    return [run for run in group.runs if ends_of([run], quantity)]


def _difference(group: _Side, baseline: _Side, quantity: Quantity) -> Difference:
    scale = _log10 if quantity.headline.is_logarithmic else float
    has_seeds = _have_seeds(group, baseline)
    a, b = _paired_best((group, baseline), quantity)
    shared = [seed for seed in a if seed in b]
    if len(shared) >= FEWEST or (has_seeds and len(shared) == min(len(a), len(b))):
        mapped = ({i: scale(side[seed]) for i, seed in enumerate(shared)} for side in (a, b))
        return paired_difference(*mapped)
    sides = [
        list(by_seed.values()) if has_seeds else ends_of(runs, quantity)
        for runs, by_seed in ((group, a), (baseline, b))
    ]
    return welch_difference(*([scale(x) for x in side] for side in sides))


def _have_seeds(*sides: _Side) -> bool:
    return all(run.seed is not None for runs in sides for run in runs)


def _averaged(
    labels: tuple[str, str], sides: tuple[_Side, _Side], quantity: Quantity, difference: Difference
) -> tuple[str, ...]:
    """The labels of the sides in which several runs of a seed count as one."""
    if not (difference.paired or _have_seeds(*sides)):  # each run by itself
        return ()
    by_seed = _paired_best(sides, quantity)
    seeded = [[run for run in runs if run.seed is not None] for runs in sides]
    return tuple(
        label
        for label, runs, found in zip(labels, seeded, by_seed, strict=True)
        if len(found) < len(runs)
    )


_SEEDS: tuple[Callable[[Run], Hashable], ...] = (
    lambda run: run.seed,
    lambda run: (run.seed, run.data_seeds),
    lambda run: (run.seed, run.seeds),
)
"""What two runs that form a pair have in common: from one seed to all of them."""


def _paired_best(
    sides: tuple[_Side, _Side], quantity: Quantity
) -> tuple[Mapping[Hashable, float], Mapping[Hashable, float]]:
    """The values of two sides by the seeds that give the most pairs, the fewest such seeds."""
    found = [
        (end_by_seed(sides[0], quantity, seed), end_by_seed(sides[1], quantity, seed))
        for seed in _SEEDS
    ]
    return max(found, key=lambda two: len(two[0].keys() & two[1].keys()))


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _resolves(difference: Difference) -> float:
    # Where all differences are equal, their spread is unknown, not 0.
    is_known = difference.paired and difference.sd > 0
    is_known &= difference.n < FEWEST or not math.isnan(difference.p)
    return detectable_difference(difference.sd, difference.n) if is_known else math.nan


def difference_table(differences: Sequence[BaselineDifference]) -> Table:
    """The differences as a table of texts, one row a group and quantity."""
    heads = ["rule", "quantity", "n", "test", f"difference to {differences[0].baseline}"]
    heads += ["95 % interval", "p", "p (Holm)", "resolves"]
    rows = [
        [
            found.label,
            found.quantity.text,
            str(found.difference.n),
            PAIRED if found.difference.paired else WELCH,
            _size(found, found.difference.mean, signed=True),
            _interval(found),
            _p_text(found.difference.p),
            _p_text(found.p_holm),
            _size(found, found.resolves),
        ]
        for found in differences
    ]
    return Table(heads, rows, left=(0, 1, 3))


def _size(found: BaselineDifference, value: float, *, signed: bool = False) -> str:
    headline = found.quantity.headline
    if math.isnan(value):
        return "n/a"
    if headline.is_logarithmic:
        return f"{_TIMES}{_power(value):.3g}"
    return number_text(value, f"{'+' if signed else ''}{readable_form(value, headline.form)}")


def _power(exponent: float) -> float:
    return 10**exponent if exponent < 308 else math.inf


def _interval(found: BaselineDifference) -> str:
    if math.isnan(found.difference.low):
        return "n/a"
    ends = (found.difference.low, found.difference.high)
    return f"[{', '.join(_size(found, end, signed=True) for end in ends)}]"


def _p_text(p: float) -> str:
    return "<0.0001" if p < 1e-4 else number_text(p, ".2g")


def difference_notes(differences: Sequence[BaselineDifference]) -> list[str]:
    """What the differences mean, what these runs can resolve, and what is undefined and why."""
    if not differences:
        return []
    quantities = dict.fromkeys(found.quantity for found in differences)
    notes = _holm_note(differences)
    known = [
        text
        for quantity in quantities
        if (text := _range([found for found in differences if found.quantity == quantity]))
    ]
    if known:
        notes.append(
            "resolves: smallest true difference that these pairs detect at 80 % power (two-sided "
            f"paired t test, alpha 0.05, before Holm's correction): {'; '.join(known)}"
        )
    few = dict.fromkeys(f.label for f in differences if f.difference.n < FEWEST)
    if few:
        notes.append(f"no interval and no p value with fewer than 3 pairs or runs: {_some(few)}")
    averaged = dict.fromkeys(label for f in differences for label in f.averaged)
    if averaged:
        notes.append(
            f"averaged: runs of one seed count as one in the differences: {_some(averaged)}"
        )
    equal = dict.fromkeys(
        f"{f.label} ({f.quantity.text})"
        for f in differences
        if f.difference.n >= FEWEST
        and math.isnan(f.difference.p)
        and math.isfinite(f.difference.sd)
    )
    if equal:
        notes.append(f"no interval where all differences are equal: {_some(equal)}")
    return notes


def without_difference(
    baseline: str, groups: Mapping[str, Group], differences: Sequence[BaselineDifference]
) -> list[str]:
    """A note on the groups that the table of differences lacks."""
    if not differences:
        return [f"no difference to {baseline}: no finished run of it measured what another one did"]
    known = {baseline, *(found.label for found in differences)}
    missing = [label for label in groups if label not in known]
    if not missing:
        return []
    return [f"no difference of {_some(missing)}: no finished run measured what {baseline} did"]


def _holm_note(differences: Sequence[BaselineDifference]) -> list[str]:
    """Over how many groups p values are corrected: those that have one."""
    counts = Counter(f.quantity.name for f in differences if not math.isnan(f.difference.p))
    if not counts:
        return []
    numbers = dict.fromkeys([min(counts.values()), max(counts.values())])
    groups = f"{' to '.join(map(str, numbers))} group{'s' * (max(numbers) > 1)}"
    return [
        f"p (Holm): corrected over the {groups} compared with {differences[0].baseline} that "
        f"{'have' if max(numbers) > 1 else 'has'} a p value, each quantity by itself"
    ]


def _range(differences: Sequence[BaselineDifference]) -> str:
    """The smallest and the largest difference that is resolved, with the numbers of pairs."""
    known = [found for found in differences if not math.isnan(found.resolves)]
    if not known:
        return ""
    ordered = sorted(known, key=lambda found: found.resolves)
    sizes = dict.fromkeys(_size(found, found.resolves) for found in (ordered[0], ordered[-1]))
    numbers = sorted({found.difference.n for found in known})
    n = "n = " + (str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}")
    return f"{known[0].quantity.text} {' to '.join(sizes)} ({n})"


def _some(labels: Iterable[str]) -> str:
    listed = list(labels)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def difference_columns(found: BaselineDifference) -> dict[str, str | int | float]:
    """The numbers of a difference as columns of the CSV."""
    name, difference = f"{found.quantity.name}_diff", found.difference
    return {
        name: difference.mean,
        f"{name}_n": difference.n,
        f"{name}_sd": difference.sd,
        f"{name}_low": difference.low,
        f"{name}_high": difference.high,
        f"{name}_p": difference.p,
        f"{name}_p_holm": found.p_holm,
        f"{name}_resolves": found.resolves,
        f"{name}_test": PAIRED if difference.paired else WELCH,
    }
