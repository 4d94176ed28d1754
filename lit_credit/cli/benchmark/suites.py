"""Reading what a benchmark runs: the tasks and the budget of a suite, and the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lit_credit.runs.files import reason_of
from lit_credit.runs.yaml_files import read_yaml
from lit_credit.utils.short_text import choice

__all__ = ["Entry", "Suite", "find_entries", "read_entries", "read_suite", "suite_names"]

_HERE = Path(__file__).parent
_RULES = _HERE / "rules.yaml"


@dataclass(frozen=True)
class Entry:
    """A rule of the benchmark.

    Attributes:
        name: its row in the table.
        class_path: the class, or the short name of one of lit_credit's.
        arguments: arguments that differ from the defaults, by dotted name.
        knob: the argument that is searched, by dotted name; empty if there is none.
        values: the values of the knob.
        nets: classes of nets on which the rule is defined; empty for all.
        credit_scale: whether the learning rate of the units is searched by itself.
    """

    name: str
    class_path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    knob: str = ""
    values: Sequence[Any] = ()
    nets: Sequence[str] = ()
    credit_scale: bool = True

    def fits(self, task: Mapping[str, Any]) -> bool:
        """Whether the rule is defined on the net of a task."""
        net = str(task["model"]["init_args"]["net"]["class_path"]).rpartition(".")[2]
        return not self.nets or net in self.nets


@dataclass(frozen=True)
class Suite:
    """Tasks, and the budget that every rule gets on each of them.

    Attributes:
        name: its name, or the stem of its file.
        tasks: configuration of ``lit-credit fit`` by task, without the rule.
        rules: names of the rules that run.
        studies: independent searches of a rule.
        trials: configurations in a search.
        seeds: seeds of the chosen configuration.
        metric: name of the metric by which trials are chosen.
        ships: whether the suite ships with lit_credit, as its measured rows do.
        better: whether large (``up``) or small (``down``) values of the metric are better. Empty
            takes what the task declares, see
            :func:`lit_credit.cli.benchmark.direction.find_direction`.
    """

    name: str
    tasks: Mapping[str, Mapping[str, Any]]
    rules: Sequence[str]
    studies: int
    trials: int
    seeds: Sequence[int]
    metric: str = "accuracy"
    ships: bool = False
    better: Literal["", "up", "down"] = ""


def suite_names() -> list[str]:
    """The names of the suites that ship with lit_credit."""
    return sorted(path.stem for path in (_HERE / "suites").glob("*.yaml"))


def read_suite(suite: str | Path) -> Suite:
    """Read a suite.

    Args:
        suite: the name of one that ships with lit_credit, or a YAML file of the same form.

    Raises:
        ValueError: if there is no such suite, or the file is not a suite.
    """
    path = Path(suite)
    if path.suffix not in (".yaml", ".yml"):
        path = _HERE / "suites" / f"{suite}.yaml"
        if not path.is_file():
            raise ValueError(
                f"--suite: {str(suite)!r}. Expected {choice(suite_names(), str(suite))}, or a YAML "
                "file of the same form."
            )
    found = _read(path, "--suite")
    entries = read_entries()
    try:
        rules = list(entries) if found["rules"] == "all" else list(map(str, found["rules"]))
        made = Suite(
            path.stem,
            dict(found["tasks"]),
            rules,
            int(found["studies"]),
            int(found["trials"]),
            list(map(int, found["seeds"])),
            str(found.get("metric", "accuracy")),
            ships=path.parent == _HERE / "suites",
            better=found.get("better", ""),
        )
        for task in made.tasks.values():
            _ = task["model"]["init_args"]["net"]["class_path"], task["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--suite: {str(path)!r}: {error!r}. Expected `studies`, `trials`, `seeds`, `rules` "
            "(names, or `all`) and `tasks`: name to a configuration of `lit-credit fit` with "
            f"`model.init_args.net.class_path` and `data`, such as {_HERE / 'suites/digits.yaml'}."
        ) from error
    if made.better not in ("", "up", "down"):
        raise ValueError(
            f"--suite: {str(path)!r}: `better` is {made.better!r}. Expected `up` (large values of "
            "`metric` are better) or `down`."
        )
    unknown = [name for name in rules if name not in entries]
    if unknown:
        raise ValueError(
            f"--suite: {str(path)!r}: rule {unknown[0]!r}. Expected {choice(entries, unknown[0])}."
        )
    if min(made.studies, made.trials, len(made.seeds), len(made.tasks), len(rules)) < 1:
        raise ValueError(
            f"--suite: {str(path)!r}: expected 1 or more `studies`, `trials`, `seeds`, `tasks` and "
            "`rules`."
        )
    return made


def read_entries(path: str | Path = _RULES) -> dict[str, Entry]:
    """Read rules from a YAML file, by default those that ship with lit_credit.

    Raises:
        ValueError: if the file cannot be read, or is not of the form of lit_credit's own.
    """
    return {name: _entry(str(name), row, path) for name, row in _read(path, "--rule").items()}


def find_entries(rule: str, knob: str = "", values: Sequence[Any] = ()) -> dict[str, Entry]:
    """The rules that one word of a command line names.

    Args:
        rule: a name of a row of the benchmark, a YAML file with rows, or the import path of a
            class, such as ``my_module.MyRule``.
        knob: argument of the class to search.
        values: the values of the knob.

    Raises:
        ValueError: if it is none of these.
    """
    known = read_entries()
    if rule in known and not knob:
        return {rule: known[rule]}
    if rule.endswith((".yaml", ".yml")):
        return read_entries(rule)
    if not all(part.isidentifier() for part in rule.split(".")):
        raise ValueError(
            f"--rule: {rule!r}. Expected the import path of a class, such as my_module.MyRule, a "
            f"YAML file with rows as in {_RULES}, or one of {choice(known, rule)}."
        )
    name = rule.rpartition(".")[2]
    return {name: Entry(name, rule, knob=knob, values=values)}


def _read(path: str | Path, option: str) -> dict[str, Any]:
    try:
        found = read_yaml(path)
    except OSError as error:
        raise ValueError(f"{option}: {str(path)!r} cannot be read: {reason_of(error)}.") from error
    except ValueError as error:
        raise ValueError(f"{option}: {str(path)!r}: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{option}: {str(path)!r}: expected a mapping that is not empty.")
    return found


def _entry(name: str, row: Any, path: str | Path) -> Entry:
    try:
        unknown = set(row) - {"model", "knob", "nets", "credit_scale"}
        if unknown:
            raise ValueError(f"unknown {min(unknown)!r}")
        knob, values = next(iter(row.get("knob", {"": []}).items()))
        if knob and (not isinstance(values, list) or not values):
            raise ValueError(f"`knob.{knob}` is {values!r}, not a list of values")
        return Entry(
            name,
            str(row["model"]["class_path"]),
            dict(row["model"].get("init_args", {})),
            knob,
            values,
            row.get("nets", ()),
            bool(row.get("credit_scale", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"--rule: {str(path)!r}: {name}: {error!r}. Expected `model` with `class_path` and "
            "`init_args`, and if wanted `knob` (an argument to a list of values), `nets` and "
            "`credit_scale`."
        ) from error
