"""The command ``lit-credit benchmark``."""

import argparse
import sys
from collections.abc import Sequence

import yaml

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.cli.benchmark.suites import find_entries, read_suite, suite_names

__all__ = ["main", "parser"]

_DESCRIPTION = """Tune rules under one budget, and compare their results.

`lit-credit benchmark` runs every rule of the suite: on digits 1,140 runs, about half an hour on two
CPU cores. `--rule my_module.MyRule` runs your own rule
with BP and FrozenUnits, and shows the rows that ship with lit_credit below. The same command
continues after an interruption. Further options, such as `--data.init_args.root DATA`, apply to
every run. docs/benchmark.md explains the protocol."""


def parser() -> ShortErrorArguments:
    """The parser of the command; further words go to ``fit``."""
    made = ShortErrorArguments(
        "lit-credit benchmark",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    suites = ", ".join(suite_names())
    add("--suite", default="digits", metavar="SUITE", help=f"{suites}, or a YAML file (digits)")
    add(
        "--rule",
        action="append",
        metavar="RULE",
        help="import path of a class, a row of the benchmark, or a YAML file with rows; repeatable",
    )
    add(
        "--knob",
        default="",
        metavar="NAME=[VALUES]",
        help="argument of the class, and the values to search",
    )
    add("--out", default="runs/benchmark", metavar="DIR", help="folder for runs and tables")
    add("--jobs", type=int, metavar="N", help="number of parallel runs (one per CPU)")
    return made


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    That is 1 if a rule has no row or a row lacks a seed, 2 after wrong arguments, 130 after Ctrl-C.

    Args:
        args: the words after ``lit-credit benchmark``; by default the process's arguments.
    """
    options, words = parser().parse_known_args(args)
    try:
        knob, values = _knob(options.knob)
        if options.knob and any(rule.endswith((".yaml", ".yml")) for rule in options.rule or ()):
            raise ValueError(
                "--knob: it is for a class that --rule names. Rows of a YAML file have `knob`."
            )
        read_suite(options.suite)  # wrong words are refused before torch is loaded
        for rule in options.rule or ():
            find_entries(rule, knob, values)
        from lit_credit.cli.benchmark.protocol import benchmark

        results = benchmark(
            options.suite,
            options.rule,
            options.out,
            knob=knob,
            values=values,
            words=words,
            jobs=options.jobs,
        )
    except (ValueError, OSError) as error:
        print(f"lit-credit benchmark: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on.", file=sys.stderr)
        return 130
    print(f"\n{results}\n")
    print(
        f"Written: {options.out}/{results.suite}: table.md, runs.csv, trials.csv, a figure a task"
    )
    return int(bool(results.failed))


def _knob(text: str) -> tuple[str, list[object]]:
    """The name and the values of ``NAME=[VALUES]``."""
    if not text:
        return "", []
    name, _, values = text.partition("=")
    found = yaml.safe_load(values) if values else None
    if not name or not isinstance(found, list) or not found:
        raise ValueError(
            f"--knob: {text!r}. Expected the name of an argument and a list of values, such as "
            "feedback_scale=[0.1,1,10]."
        )
    return name, found
