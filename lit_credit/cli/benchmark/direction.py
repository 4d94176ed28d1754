"""Whether large or small values of a benchmark's metric are better."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jsonargparse import ArgumentParser

from lit_credit.cli.benchmark.suites import Suite
from lit_credit.cli.boundary import line_of
from lit_credit.comparison.known import declared_quantities, found_class, our_quantities
from lit_credit.comparison.quantities import METRICS, VALIDATION, Quantity
from lit_credit.tasks import Task
from lit_credit.tasks.added_metrics import ViewedMetric

__all__ = ["Better", "find_direction", "known_direction"]

Better = Literal["up", "down"]
_WORDS = {"up": "large", "down": "small"}
_REMEDY = (
    "Add `better: up` (large values are better) or `better: down` (small values) to the suite, or "
    "declare it in the class of the task (`better` of a Headline) or of the metric "
    "(`higher_is_better`)"
)


def find_direction(suite: Suite, tasks: Mapping[str, Mapping[str, Any]]) -> Better:
    """Find whether large or small values of a suite's metric are better.

    A headline of the task's class decides, as in ``lit-credit compare``. Every task has the
    headlines of :class:`lit_credit.tasks.Task`: a large accuracy and a small loss are better. For
    a metric without a headline the suite decides, and then ``higher_is_better`` of the metric.

    Args:
        suite: the suite.
        tasks: name of a task of the suite to the class and arguments of its
            :class:`lit_credit.tasks.Task`.

    Raises:
        ValueError: if a task does not have the metric, nobody declares the direction, or two
            declarations differ.
    """
    about = f"--suite: {suite.name}: `metric` is {suite.metric!r}"
    found: dict[str, Better] = {}
    for name, task in tasks.items():
        declared = _of_headlines(suite.metric, task)
        if suite.better and declared not in (None, suite.better):
            raise ValueError(
                f"{about} and `better` is {suite.better!r}, but {_class_of(task)} of task {name!r} "
                f"declares that {_WORDS[declared or 'up']} values are better. Remove `better`."
            )
        found[name] = suite.better or _of_task(suite.metric, declared, name, task, about)
    directions = set(found.values())
    if len(directions) > 1:
        listed = ", ".join(f"{_WORDS[better]} in {name!r}" for name, better in found.items())
        raise ValueError(
            f"{about}. Better values of it are {listed}. Expected one direction in all tasks: give "
            "each direction a suite of its own."
        )
    return directions.pop()


def known_direction(metric: str) -> Better:
    """The direction of a metric for which a class of lit_credit declares a headline.

    Raises:
        ValueError: if there is none.

    Example:
        >>> known_direction("loss"), known_direction("accuracy/ood")
        ('down', 'up')
    """
    found = _among(metric, [q for q in our_quantities() if q.history == METRICS])
    if found is None:
        raise ValueError(
            f"`metric` is {metric!r}, and no headline of lit_credit declares its direction. "
            "Expected `better`: 'up' (large values are better) or 'down' (small values)."
        )
    return found


def _of_headlines(metric: str, task: Mapping[str, Any]) -> Better | None:
    """The direction in the headlines of a task's class and of the base class."""
    kind = found_class(task["class_path"])
    kinds = [kind, Task] if kind is not None else [Task]
    return _among(metric, [q for one in kinds for q in declared_quantities([one])])


def _among(metric: str, quantities: list[Quantity]) -> Better | None:
    for name in _names(metric):
        for quantity in quantities:
            fixed = not callable(quantity.headline.tag)
            if fixed and quantity.tag({}) == f"{VALIDATION}/{name}":
                better = quantity.headline.better
                if better != "neither":
                    return better
    return None


def _names(metric: str) -> Iterator[str]:
    """A metric, and what it may be called without the name of a loader or of a member."""
    while metric:
        yield metric
        metric = metric.rpartition("/")[0]


def _of_task(
    metric: str, declared: Better | None, name: str, task: Mapping[str, Any], about: str
) -> Better:
    """The direction of a metric of a task: that of a headline, or ``higher_is_better``."""
    if declared and "loss" in _names(metric):  # every task has a loss
        return declared
    kind = _class_of(task)
    try:
        metrics = _metrics(task)
    except Exception as error:  # a class of another project may raise anything
        if declared:
            return declared
        raise ValueError(
            f"{about}, no headline declares its direction, and {kind} of task {name!r} cannot be "
            f"built to ask its metrics: {line_of(error)} {_REMEDY}."
        ) from error
    found = next((metrics[one] for one in _names(metric) if one in metrics), None)
    if found is None:
        raise ValueError(
            f"{about}, which {kind} of task {name!r} does not have. Expected one of "
            f"{', '.join(dict.fromkeys(['loss', *metrics]))}. If something else logs "
            f"`{VALIDATION}/{metric}`, add `better: up` or `better: down` to the suite."
        )
    while isinstance(found, ViewedMetric):
        found = found.metric
    if declared:
        return declared
    if found.higher_is_better is None:
        raise ValueError(
            f"{about}, and neither {kind} of task {name!r} nor {type(found).__name__} declares "
            f"whether large or small values are better. Expected a direction. {_REMEDY}."
        )
    return "up" if found.higher_is_better else "down"


def _class_of(task: Mapping[str, Any]) -> str:
    return str(task["class_path"]).rpartition(".")[2]


def _metrics(task: Mapping[str, Any]) -> Mapping[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "task")
    built: Task = parser.instantiate_classes(parser.parse_object({"task": dict(task)})).task
    return built.metrics()
