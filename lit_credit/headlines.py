"""What a class declares for comparisons of runs: its quantities, its figures, its colour.

A diagnostic and a task have ``headline``, a diagnostic may have ``comparison_figures``, and a rule
has ``look``. ``lit-credit compare`` finds the classes of a run by the import paths in its
``config.yaml`` and reads these attributes; it makes no instance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["ComparisonFigure", "Derived", "Ends", "Flag", "Headline", "Look", "Panel"]

LATE = 100.0
"""Place of what does not say where it stands: after all that lit_credit declares."""


@dataclass(frozen=True)
class Ends:
    """What is known of a quantity, each number a mean over runs, NaN if it was not measured.

    Attributes:
        first: at epoch 0.
        last: at the last epoch.
        baseline: at the last epoch of the baseline's runs, see :class:`Look`.
    """

    first: float
    last: float
    baseline: float


@dataclass(frozen=True)
class Flag:
    """A warning in the table.

    Attributes:
        name: a word for the table.
        column: of the CSV.
        text: when it is raised; ``{baseline}`` stands for the name of the baseline's rule.
        raised: 1 if it is raised, 0 if it is not, NaN if that is undefined.
    """

    name: str
    column: str
    text: str
    raised: Callable[[Ends], float]


@dataclass(frozen=True)
class Derived:
    """A column that is computed from a quantity.

    Attributes:
        column: of the CSV, and of the table if ``head`` is empty.
        value: the number.
        head: of the table's column.
        form: format of the number in the table.
        order: place among the columns; None takes that of the quantity.
        flag: a warning that belongs to it.
    """

    column: str
    value: Callable[[Ends], float]
    head: str = ""
    form: str = ".3g"
    order: float | None = None
    flag: Flag | None = None


@dataclass(frozen=True)
class Panel:
    """A panel of ``comparison.png``: the quantity over epochs, one colour a rule.

    Attributes:
        title: what is shown.
        ylabel: the quantity and its unit.
        log: draw a logarithmic axis and geometric means, label curves with their growth, and draw
            the earlier layers as thin lines.
        reach: the numbers to which a linear axis reaches at least.
        slot: of the panels with one slot only the first that was measured is drawn.
        order: place among the panels, and in the slot.
    """

    title: str
    ylabel: str
    log: bool = False
    reach: tuple[float, float] | None = None
    slot: str = ""
    order: float = LATE


@dataclass(frozen=True)
class Headline:
    """A quantity by which runs are compared.

    The table shows mean and standard deviation over seeds at the end of training.

    Attributes:
        name: of the column in the CSV.
        tag: below the section of a diagnostic, or the name of a task's metric; a function of rows
            and section that returns the tag, or None; "" takes ``name``.
        layers: what is taken of the tags ``<tag>/L00``, ``<tag>/L01`` ..: the value of the
            ``last`` layer, or the ``mean`` over layers. "" takes the tag as it is.
        head: of the table's column; "" takes ``name`` with spaces.
        form: format of the numbers in the table.
        order: place among the columns.
        start: also show the mean at epoch 0.
        each_loader: of a task's metric, also show that of further validation loaders.
        derived: columns that are computed from it.
        panel: its panel in the figure; None draws none.
        unit: of the numbers, in parentheses behind the heading; "" for a pure number.
        better: whether a good run has a large value (``up``) or a small one (``down``). A
            difference to a baseline is shown where this is not ``neither``.
        log: compare ratios, not differences; also true if the panel is logarithmic.

    Example:
        >>> Headline("ood_error").text, Headline("time", unit="s").text
        ('ood error', 'time (s)')
    """

    name: str
    tag: str | Callable[[Sequence[dict[str, Any]], str], str | None] = ""
    layers: Literal["", "last", "mean"] = ""
    head: str = ""
    form: str = ".3g"
    order: float = LATE
    start: bool = False
    each_loader: bool = False
    derived: tuple[Derived, ...] = ()
    panel: Panel | None = None
    unit: str = ""
    better: Literal["up", "down", "neither"] = "neither"
    log: bool = False

    @property
    def text(self) -> str:
        """Head of the table's column."""
        text = self.head or self.name.replace("_", " ")
        return f"{text} ({self.unit})" if self.unit else text

    @property
    def is_logarithmic(self) -> bool:
        """Whether the quantity spans decades."""
        return self.log or (self.panel is not None and self.panel.log)


@dataclass(frozen=True)
class ComparisonFigure:
    """A diagnostic's figure of several runs, drawn where one of them has its history.

    Attributes:
        stem: of the file, without ``.png``.
        text: what it shows, for a line below the table.
        draw: a function of the runs, label to the histories of each seed, and by keyword of a
            ``title`` and of ``colors``, label to colour. It returns a matplotlib Figure.
    """

    stem: str
    text: str
    draw: Callable[..., Any]


@dataclass(frozen=True)
class Look:
    """How comparisons show a rule.

    A subclass does not inherit it: two rules of one colour could not be told apart.

    Attributes:
        order: place among the rules; those of equal places stand by name.
        color: of its curves, as matplotlib names it; None takes one that is free.
        baseline: other rules of the same net and data are compared with it.
    """

    order: float = 50.0
    color: str | None = None
    baseline: bool = False
