"""Finding the quantities and figures that classes of lit_credit and of a run declare.

A class is found by its import path, as in ``lit-credit fit``. Nothing is instantiated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from inspect import isclass
from pkgutil import iter_modules
from typing import Any

from lit_credit import callbacks, rules, studies, tasks
from lit_credit.comparison.quantities import METRICS, VALIDATION, Quantity, named_apart
from lit_credit.former_names import current_path, named_by_a_file
from lit_credit.headlines import ComparisonFigure, Headline, Look
from lit_credit.plotting._runs import run_colors
from lit_credit.protocols import ComparedProtocol, asked, member_name
from lit_credit.runs.acting import acts_by_path
from lit_credit.runs.ended import may_stop
from lit_credit.runs.run_folder import Run, with_acting
from lit_credit.runs.series import Curve, Histories

__all__ = [
    "HISTORIES",
    "declared_figures",
    "declared_quantities",
    "declares_metrics",
    "found_class",
    "kinds_of",
    "known_histories",
    "look_of",
    "our_figures",
    "our_quantities",
    "rule_colors",
    "run_curve",
    "with_known_callbacks",
]


def found_class(path: str) -> type | None:
    """The class of a current or former import path; None if it cannot be imported."""
    module, _, name = current_path(path).rpartition(".")
    if "__main__" in module.split(".")[1:]:  # a command: importing it would run it
        return None
    try:
        with named_by_a_file():
            found = getattr(import_module(module), name)
    except (Exception, SystemExit):  # a module of another project may raise anything
        return None
    return found if isclass(found) else None


def kinds_of(run: Run) -> list[type]:
    """The classes of a run's task and callbacks, without those that cannot be imported."""
    return [kind for path in (run.task, *run.callbacks) if (kind := found_class(path))]


def with_known_callbacks(run: Run) -> Run:
    """The run, with what the classes of its own callbacks say of them.

    Those that only watch do not belong to its experiment, and those that inherit Lightning's
    ``EarlyStopping`` may end it. A callback that cannot be imported counts as one that acts.
    """
    own = [found_class(path) for path in run.callbacks if acts_by_path(path) is None]
    stops = any(map(may_stop, (path for kind in own if kind for path in _paths(kind))))
    return replace(with_acting(run, _acts), may_stop=run.may_stop or stops) if own else run


def _acts(path: str) -> bool:
    known = acts_by_path(path)
    if known is not None:
        return known
    kind = found_class(path)
    said = asked(kind, ComparedProtocol.acts_on_training, None)
    if isinstance(said, bool) or kind is None:
        return said is not False
    if issubclass(kind, callbacks.Diagnostic):
        return False
    found = (_base_acts(base) for base in _paths(kind)[1:])
    return next((acts for acts in found if acts is not None), True)


def _paths(kind: type) -> list[str]:
    """Import paths of a class and of those that it inherits."""
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def _base_acts(path: str) -> bool | None:
    package, rest = path.partition(".")[::2]
    if package == "lit_credit" and not rest.startswith("callbacks."):
        return None  # a class that helps, such as the Callback of both packages of Lightning
    return acts_by_path(path)


def declares_metrics(path: str) -> bool:
    """Whether the task at an import path can be imported, and says which metrics are compared."""
    kind = found_class(path)
    if kind is None or not issubclass(kind, tasks.Task):
        return False
    return kind.headline is not tasks.Task.headline or kind.__module__.startswith("lit_credit.")


def look_of(run: Run) -> Look:
    """The look (colour, order, baseline) of a run's rule."""
    return _own_look(found_class(run.class_path))


def _own_look(kind: type | None) -> Look:
    found = vars(kind).get(member_name(ComparedProtocol.look)) if isclass(kind) else None
    return found if isinstance(found, Look) else Look()


def rule_colors(labels: Iterable[str]) -> dict[str, str]:
    """The colours of lit_credit's rules, for labels of runs that begin with a rule's name.

    Args:
        labels: labels such as ``DFA``, or ``DFA lr=0.1`` with more text after a blank.

    Returns:
        A colour for every label, also for labels that do not begin with a rule's name.

    Example:
        >>> rule_colors(["BP", "DFA"])
        {'BP': '#0072B2', 'DFA': '#D55E00'}
    """
    kinds = {label: getattr(rules, label.partition(" ")[0], None) for label in labels}
    return run_colors(list(kinds), {name: _own_look(kind).color for name, kind in kinds.items()})


def declared_quantities(kinds: Iterable[type]) -> list[Quantity]:
    """The quantities that classes declare, in the order of the classes.

    Raises:
        ValueError: if a class declares anything but a tuple or list of headlines.
    """
    found = []
    for kind in kinds:
        for headline in _declared(kind, ComparedProtocol.headline, Headline):
            history, section = _place(kind)
            if history:
                found.append(Quantity(headline, history, section))
    return named_apart(found)


def declared_figures(kinds: Iterable[type]) -> list[tuple[str, ComparisonFigure]]:
    """The comparison figures that classes declare, each with the history that it draws."""
    found: list[tuple[str, ComparisonFigure]] = []
    for kind in kinds:
        for figure in _declared(kind, ComparedProtocol.comparison_figures, ComparisonFigure):
            entry = _place(kind)[0], figure
            if entry not in found:
                found.append(entry)
    return found


def _declared(kind: type, member: Any, of: type[Any]) -> Sequence[Any]:
    declared = asked(kind, member, ())
    if not isinstance(declared, tuple | list) or not all(isinstance(one, of) for one in declared):
        if not issubclass(kind, callbacks.Diagnostic | tasks.Task):
            return ()  # a class of another project may use the name for something else
        raise ValueError(
            f"class {kind.__module__}.{kind.__qualname__}: `{member_name(member)}` is "
            f"{declared!r:.80}, expected a tuple of {of.__name__}, such as ({of.__name__}(...),)."
        )
    return declared


def _place(kind: type) -> tuple[str, str]:
    """The history with a class's quantities, and the prefix of their tags."""
    if issubclass(kind, tasks.Task):
        return METRICS, VALIDATION
    name = asked(kind, ComparedProtocol.name, None)
    section = asked(kind, ComparedProtocol.section, None)
    return (name, section) if isinstance(name, str) and isinstance(section, str) else ("", "")


@cache
def _our_classes() -> tuple[type, ...]:
    """The public classes of lit_credit that may declare a quantity."""
    rooms = [tasks, callbacks]
    rooms += [import_module(f"{studies.__name__}.{m.name}") for m in iter_modules(studies.__path__)]
    return tuple(x for room in rooms for name in room.__all__ if isclass(x := getattr(room, name)))


@cache
def _our_kinds() -> tuple[type, ...]:
    """Tasks, then diagnostics in the order of their panels."""
    kinds = _our_classes()
    diagnostics = [kind for kind in kinds if issubclass(kind, callbacks.Diagnostic)]
    return (
        tasks.Task,
        *(kind for kind in kinds if issubclass(kind, tasks.Task)),
        *sorted(diagnostics, key=_first_panel),
    )


def known_histories(run: Run) -> set[str]:
    """Names of the histories that classes of lit_credit and of the run write."""
    names = {asked(kind, ComparedProtocol.name, None) for kind in (*_our_classes(), *kinds_of(run))}
    return {name for name in names if isinstance(name, str)}


def _first_panel(kind: type) -> float:
    declared = _declared(kind, ComparedProtocol.headline, Headline)
    return min((h.panel.order for h in declared if h.panel is not None), default=float("inf"))


@cache
def our_quantities() -> tuple[Quantity, ...]:
    """The quantities that classes of lit_credit declare; every comparison has their columns."""
    return tuple(declared_quantities(_our_kinds()))


def our_figures() -> list[tuple[str, ComparisonFigure]]:
    """The comparison figures that classes of lit_credit declare."""
    return declared_figures(_our_kinds())


def run_curve(histories: Histories, quantity: str) -> Curve:
    """The curve of a quantity that a class of lit_credit declares; empty if it was not measured.

    Args:
        histories: histories of one run.
        quantity: name of the quantity, such as ``accuracy`` or ``h``; for a metric of a further
            validation loader, ``accuracy/ood``.

    Raises:
        KeyError: if there is no quantity of the name.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"val/accuracy": 0.1}}
        >>> run_curve({"metrics": [row]}, "accuracy"), run_curve({"metrics": [row]}, "h")
        ({0: 0.1}, {})
    """
    name, _, loader = quantity.partition("/")
    found = {known.name: known for known in our_quantities()}[name]
    if loader:
        found = Quantity(Headline(quantity), found.history, found.section)
    return found.curve(histories)


HISTORIES = tuple(dict.fromkeys(quantity.history for quantity in our_quantities()))
"""Histories with a quantity of lit_credit, as stems of their files."""
