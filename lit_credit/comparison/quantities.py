"""The quantities by which runs are compared, and reading them from histories."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from lit_credit.comparison.statistics import mean_of, sd_of
from lit_credit.headlines import Headline, Panel
from lit_credit.runs.columns import Line
from lit_credit.runs.run_folder import Run
from lit_credit.runs.series import (
    Curve,
    Histories,
    last_layer_line,
    layer_mean_line,
    line_of,
    tags_of,
)

__all__ = [
    "METRICS",
    "TEST",
    "VALIDATION",
    "Quantity",
    "Spread",
    "as_they_are",
    "end_by_seed",
    "ends_of",
    "is_measured",
    "metric_quantity",
    "named_apart",
    "of_loaders",
    "of_patterns",
    "of_test_data",
    "spread_of",
    "start_of",
]

METRICS = "metrics"
"""Stem of the history that holds a task's metrics."""
VALIDATION = "val"
"""Prefix of the tags of a task's metrics."""
TEST = "test"
"""Stem of the history of the metrics on test data, and prefix of their tags."""
_MOST = 8
"""Largest number of undeclared quantities shown per history."""


@dataclass(frozen=True)
class Quantity:
    """A headline of a class, and the history that holds it.

    Attributes:
        headline: the headline that the class declares.
        history: stem of the history's file.
        section: prefix of the tags; empty if the headline's tag is the whole tag.
        prefix: prefix of the columns, if two classes declare the same name.
    """

    headline: Headline
    history: str
    section: str
    prefix: str = ""

    @property
    def name(self) -> str:
        """Name of its column in the CSV."""
        return f"{self.prefix}{self.headline.name}"

    @property
    def text(self) -> str:
        """Head of its column in a table."""
        return f"{self.prefix}{self.headline.text}"

    def curve(self, histories: Histories) -> Curve:
        """Its values by epoch; empty if it was not measured."""
        line = self.line(histories)
        return dict(zip(line.places.tolist(), line.values.tolist(), strict=True))

    def line(self, histories: Histories, by: str = "epoch") -> Line:
        """Its values by epoch or step as arrays; empty if it was not measured."""
        tag = self.tag(histories)
        rows = () if tag is None else histories.get(self.history, ())
        if self.headline.layers == "mean":
            return layer_mean_line(rows, f"{tag}/", by)
        if self.headline.layers:
            return last_layer_line(rows, f"{tag}/", by)
        return line_of(rows, f"{tag}", by)

    def tag(self, histories: Histories) -> str | None:
        """Its tag; for a quantity of layers, the tag without the layer. None if there is none."""
        tag = self.headline.tag or self.headline.name
        if not isinstance(tag, str):
            found = tag(histories.get(self.history, []), self.section)
            if found is None:
                return None
            tag = found
        return f"{self.section}/{tag}" if self.section else tag

    def may_need(self, tag: str) -> bool:
        """Whether a tag of its history may be one that it reads."""
        own = self.headline.tag or self.headline.name
        if not isinstance(own, str):
            return True
        whole = f"{self.section}/{own}" if self.section else own
        return tag.startswith(f"{whole}/") if self.headline.layers else tag == whole


class Spread(NamedTuple):
    """A mean and the sample standard deviation around it; NaN where undefined."""

    mean: float
    sd: float


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation; NaN in, NaN out."""
    return Spread(mean_of(values), sd_of(values))


def metric_quantity(name: str) -> Quantity:
    """A metric of a task, for which no class declares a headline.

    Args:
        name: name of the metric, or its tag.
    """
    name = name.removeprefix(f"{VALIDATION}/")
    panel = Panel(name, "mean over validation data")
    return Quantity(Headline(name, each_loader=True, panel=panel), METRICS, VALIDATION)


def ends_of(runs: Sequence[Run], quantity: Quantity) -> list[float]:
    """The values in the last rows of the runs that measured it; an unfinished run has none."""
    lines = [quantity.line(run.histories, "step") for run in runs if not run.unfinished]
    return [float(line.values[-1]) for line in lines if len(line.values)]


def start_of(runs: Sequence[Run], quantity: Quantity) -> float:
    """Mean at epoch 0 over the finished runs that measured it."""
    known = [quantity.line(run.histories) for run in runs if not run.unfinished]
    lines = [line for line in known if len(line.places)]
    return spread_of([float(v[0]) if p[0] == 0 else math.nan for p, v in lines]).mean


def end_by_seed(
    runs: Sequence[Run], quantity: Quantity, seed_of: Callable[[Run], Hashable]
) -> dict[Hashable, float]:
    """The value at the end for each seed, the mean over several runs of a seed.

    Args:
        runs: runs; those without a seed are left out.
        quantity: the quantity.
        seed_of: the seed of a run, or several of its seeds.
    """
    found: dict[Hashable, list[float]] = {}
    for run in runs:
        if run.seed is not None and (values := ends_of([run], quantity)):
            found.setdefault(seed_of(run), []).extend(values)
    return {seed: spread_of(values).mean for seed, values in found.items()}


def named_apart(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Each quantity once; a name that is taken already gets the history's name as a prefix."""
    found: dict[str, Quantity] = {}
    for quantity in quantities:
        if quantity in found.values():
            continue
        if quantity.name in found:
            quantity = replace(quantity, prefix=f"{quantity.history}/")
        found.setdefault(quantity.name, quantity)
    return list(found.values())


def of_loaders(quantities: Sequence[Quantity], runs: Sequence[Run]) -> list[Quantity]:
    """The metrics of further validation and test loaders (``accuracy/ood``).

    The names of the loaders are read from the tags of their losses, because every loader logs a
    loss. Tags of metrics would be ambiguous: names of metrics may contain slashes too.
    """
    found = []
    for history, section in ((METRICS, VALIDATION), (TEST, TEST)):
        loss = f"{section}/loss/"
        tags = dict.fromkeys(tag for run in runs for tag in tags_of(run.histories.get(history, ())))
        loaders = [tag.removeprefix(loss) for tag in tags if tag.startswith(loss)]
        found += [
            replace(quantity, headline=_of_loader(quantity.headline, loader))
            for loader in loaders
            for quantity in quantities
            if quantity.headline.each_loader and quantity.history == history
        ]
    return found


def _of_loader(headline: Headline, loader: str) -> Headline:
    return replace(
        headline,
        name=f"{headline.name}/{loader}",
        tag=f"{headline.tag or headline.name}/{loader}",
        head=f"{headline.head or headline.name.replace('_', ' ')} {loader}",
        each_loader=False,
        derived=(),
        panel=None,
    )


def of_test_data(quantities: Sequence[Quantity]) -> list[Quantity]:
    """The same metrics of the task on test data, measured once at the end of training."""
    return [
        Quantity(_of_test(quantity.headline), TEST, TEST, quantity.prefix)
        for quantity in quantities
        if (quantity.history, quantity.section) == (METRICS, VALIDATION)
    ]


def _of_test(headline: Headline) -> Headline:
    return replace(
        headline,
        name=f"test_{headline.name}",
        tag=headline.tag or headline.name,
        head=f"test {headline.head or headline.name.replace('_', ' ')}",
        start=False,
        derived=(),
        panel=None,
    )


def as_they_are(history: str, histories: Histories, known: Sequence[Quantity]) -> list[Quantity]:
    """The first few tags of a history as quantities; for histories of an unknown class.

    Args:
        history: stem of the history's file.
        histories: histories of the run.
        known: quantities whose tags are left out.
    """
    taken = {quantity.tag(histories) for quantity in known if quantity.history == history}
    tags = tags_of(histories.get(history, ()))
    return [_of_tag(tag, history) for tag in tags if tag not in taken][:_MOST]


def _of_tag(tag: str, history: str) -> Quantity:
    return Quantity(Headline(tag, panel=Panel(tag, tag.rpartition("/")[2])), history, "")


def of_patterns(
    patterns: Sequence[str], runs: Sequence[Run], known: Sequence[Quantity]
) -> list[Quantity]:
    """The quantities whose tags match patterns, in the order of the patterns.

    A tag that a known quantity reads keeps its name, its format and its panel.

    Args:
        patterns: tags, or columns or headings of known quantities, or glob patterns of them.
        runs: runs with all their histories.
        known: quantities that classes declare.

    Raises:
        ValueError: if a pattern matches nothing.
    """
    tags = dict.fromkeys(
        (history, tag) for run in runs for history, rows in run.histories.items()
        for tag in tags_of(rows)
    )  # fmt: skip
    declared = {
        (quantity.history, tag): quantity
        for quantity in known
        for run in runs
        if not quantity.headline.layers and (tag := quantity.tag(run.histories)) is not None
    }
    found: list[Quantity] = []
    for pattern in patterns:
        named = [quantity for quantity in known if _is_named(quantity, pattern, runs)]
        matching = [key for key in tags if fnmatchcase(key[1], pattern)]
        if not matching and not named:
            some = ", ".join(sorted({tag for _, tag in tags})[:12])
            raise ValueError(
                f"--metric: no run has a tag {pattern!r}. Tags of these runs: {some}"
                f"{', ..' if len({tag for _, tag in tags}) > 12 else ''}. Columns: "
                f"{', '.join(q.name for q in known if is_measured(q, runs))}."
            )
        found += named
        found += [declared.get(key) or _of_tag(key[1], key[0]) for key in matching]
    return [_placed(quantity, place) for place, quantity in enumerate(named_apart(found))]


def _is_named(quantity: Quantity, pattern: str, runs: Sequence[Run]) -> bool:
    """Whether a pattern means a column or heading; one with wildcards, of what was measured."""
    if quantity.name == pattern:
        return True
    names = {quantity.name, quantity.text, *_derived_names(quantity)}
    if quantity.headline.start:
        names |= {f"{quantity.name}_{end}" for end in ("first", "last")}
        names |= {f"{quantity.text} {end}" for end in ("start", "end")}
    return any(fnmatchcase(name, pattern) for name in names) and is_measured(quantity, runs)


def _derived_names(quantity: Quantity) -> set[str]:
    """The columns and headings that are computed from a quantity."""
    derived = quantity.headline.derived
    return {name for one in derived for name in (one.column, one.head) if name}


def is_measured(quantity: Quantity, runs: Sequence[Run]) -> bool:
    """Whether a run has a value of a quantity."""
    return any(len(quantity.line(run.histories).places) for run in runs)


def _placed(quantity: Quantity, place: int) -> Quantity:
    """The quantity, with a place and a panel of its own."""
    headline = quantity.headline
    panel = headline.panel or Panel(headline.text, quantity.section or quantity.name)
    panel = replace(panel, slot="", order=place)
    return replace(quantity, headline=replace(headline, order=place, panel=panel))
