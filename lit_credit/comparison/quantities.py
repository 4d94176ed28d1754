"""The quantities by which runs are compared, and where in a run's histories they stand."""

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
    "named_apart",
    "of_loaders",
    "start_of",
]

METRICS = "metrics"
"""Stem of the history that holds a task's metrics."""
VALIDATION = "val"
"""What their tags begin with."""
_MOST = 8
"""So many quantities that nothing declares are shown of a history."""


@dataclass(frozen=True)
class Quantity:
    """A headline of a class, and the history that holds it.

    Attributes:
        headline: as the class declares it.
        history: stem of the file.
        section: what the tags begin with; empty where the headline's tag is the whole tag.
        prefix: of its columns, where two classes declare one name.
    """

    headline: Headline
    history: str
    section: str
    prefix: str = ""

    @property
    def name(self) -> str:
        """Its column in the CSV."""
        return f"{self.prefix}{self.headline.name}"

    def curve(self, histories: Histories) -> Curve:
        """Its values by epoch; empty where it was not measured."""
        rows = histories.get(self.history, [])
        tag = self.tag(histories)
        if tag is None:
            return {}
        if self.headline.layers == "mean":
            return layer_mean(rows, f"{tag}/")
        return last_layer(rows, f"{tag}/") if self.headline.layers else series(rows, tag)

    def tag(self, histories: Histories) -> str | None:
        """Its tag, or that of its layers without their numbers; None if there is none."""
        tag = self.headline.tag or self.headline.name
        if not isinstance(tag, str):
            found = tag(histories.get(self.history, []), self.section)
            if found is None:
                return None
            tag = found
        return f"{self.section}/{tag}" if self.section else tag


def end_of(runs: Sequence[Run], quantity: Quantity) -> MeanAndSd:
    """Over the runs that measured it, each at its own last epoch."""
    curves = [quantity.curve(run.histories) for run in runs]
    return mean_and_sd([curve[max(curve)] for curve in curves if curve])


def start_of(runs: Sequence[Run], quantity: Quantity) -> float:
    """The mean over the runs that measured it, at epoch 0."""
    curves = [quantity.curve(run.histories) for run in runs]
    return mean_and_sd([curve.get(0, float("nan")) for curve in curves if curve]).mean.item()


def named_apart(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Each quantity once; of two with one name the second has that of its history in front."""
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

    Each loader logs a loss, so the losses tell their names; those of metrics may have slashes too.
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
    """The first quantities of a history whose class is not known, by their tags.

    Args:
        history: stem of its file.
        histories: of the run.
        known: quantities whose tags are left out.
    """
    taken = {quantity.tag(histories) for quantity in known if quantity.history == history}
    tags = {tag: None for row in histories.get(history, []) for tag in row["values"]}
    return [Quantity(Headline(tag), history, "") for tag in tags if tag not in taken][:_MOST]
