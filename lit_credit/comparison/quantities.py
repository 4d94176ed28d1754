"""The quantities by which runs are compared, and reading them from histories."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lit_credit.functional import MeanAndSd, mean_and_sd
from lit_credit.headlines import Headline
from lit_credit.runs.run_folder import Run
from lit_credit.runs.series import Curve, Histories, last_layer, layer_mean, series

__all__ = [
    "METRICS",
    "VALIDATION",
    "Quantity",
    "as_they_are",
    "end_of",
    "metric_quantity",
    "named_apart",
    "of_loaders",
    "start_of",
]

METRICS = "metrics"
"""Stem of the history that holds a task's metrics."""
VALIDATION = "val"
"""Prefix of the tags of a task's metrics."""
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

    def curve(self, histories: Histories) -> Curve:
        """Its values by epoch; empty if it was not measured."""
        rows = histories.get(self.history, [])
        tag = self.tag(histories)
        if tag is None:
            return {}
        if self.headline.layers == "mean":
            return layer_mean(rows, f"{tag}/")
        return last_layer(rows, f"{tag}/") if self.headline.layers else series(rows, tag)

    def tag(self, histories: Histories) -> str | None:
        """Its tag; for a quantity of layers, the tag without the layer. None if there is none."""
        tag = self.headline.tag or self.headline.name
        if not isinstance(tag, str):
            found = tag(histories.get(self.history, []), self.section)
            if found is None:
                return None
            tag = found
        return f"{self.section}/{tag}" if self.section else tag


def metric_quantity(name: str) -> Quantity:
    """A metric of a task, for which no class declares a headline.

    Args:
        name: name of the metric, or its tag.
    """
    headline = Headline(name.removeprefix(f"{VALIDATION}/"), each_loader=True)
    return Quantity(headline, METRICS, VALIDATION)


def end_of(runs: Sequence[Run], quantity: Quantity) -> MeanAndSd:
    """Mean and standard deviation over the runs that measured it, each at its own last epoch."""
    curves = [quantity.curve(run.histories) for run in runs]
    return mean_and_sd([curve[max(curve)] for curve in curves if curve])


def start_of(runs: Sequence[Run], quantity: Quantity) -> float:
    """Mean at epoch 0 over the runs that measured it."""
    curves = [quantity.curve(run.histories) for run in runs]
    return mean_and_sd([curve.get(0, float("nan")) for curve in curves if curve]).mean.item()


def named_apart(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Each quantity once; a name that is taken already gets the history's name as a prefix."""
    found: list[Quantity] = []
    for quantity in quantities:
        if quantity in found:
            continue
        if quantity.name in [other.name for other in found]:
            quantity = replace(quantity, prefix=f"{quantity.history}/")
        if quantity.name not in [other.name for other in found]:
            found.append(quantity)
    return found


def of_loaders(quantities: Sequence[Quantity], runs: Sequence[Run]) -> list[Quantity]:
    """The metrics of further validation loaders (``accuracy/ood``).

    The names of the loaders are read from the tags of their losses, because every loader logs a
    loss. Tags of metrics would be ambiguous: names of metrics may contain slashes too.
    """
    loss = f"{VALIDATION}/loss/"
    tags = {
        tag: None for run in runs for row in run.histories.get(METRICS, []) for tag in row["values"]
    }
    loaders = [tag.removeprefix(loss) for tag in tags if tag.startswith(loss)]
    return [
        replace(quantity, headline=_of_loader(quantity.headline, loader))
        for loader in loaders
        for quantity in quantities
        if quantity.headline.each_loader
    ]


def _of_loader(headline: Headline, loader: str) -> Headline:
    return replace(
        headline,
        name=f"{headline.name}/{loader}",
        tag=f"{headline.tag or headline.name}/{loader}",
        head=f"{headline.text} {loader}",
        each_loader=False,
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
    tags = {tag: None for row in histories.get(history, []) for tag in row["values"]}
    return [Quantity(Headline(tag), history, "") for tag in tags if tag not in taken][:_MOST]
