"""The command ``lit-credit sweep``."""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.executors import (
    Executor,
    LocalProcesses,
    RayCluster,
    default_jobs,
    run_all,
)
from lit_credit.cli.sweep.grid import RESERVED, read_grid
from lit_credit.cli.sweep.own_code import code_notes
from lit_credit.cli.sweep.plan import planned
from lit_credit.cli.sweep.progress import Progress
from lit_credit.cli.sweep.table import SUFFIXES, SweepTable
from lit_credit.runs.files import check_folder
from lit_credit.runs.lock import hold_folder
from lit_credit.utils.paths import local_path

__all__ = ["main", "parser", "sweep"]

_EXECUTORS = ("local", "ray")
_DESCRIPTION = """Run every point of a grid with every seed.

The runs are written to the folder of TABLE's name, which `lit-credit compare` reads. The same
command starts missing runs and resumes unfinished ones. Further options, such as
`--trainer.max_epochs 5`, apply to every run."""


def sweep(
    configs: Sequence[str | Path],
    grid: str | Path,
    out: str | Path,
    *,
    words: Sequence[str] = (),
    jobs: int | None = None,
    executor: str = "local",
    gpus: float = 0,
) -> list[dict[str, Any]]:
    """Run every point of a grid with every seed, and write one row per run.

    A line is printed whenever a run ends, and the table is written again. A finished run is
    skipped; an unfinished run is resumed from its checkpoint, or started over if it has none.

    Args:
        configs: YAML files of ``lit-credit fit``, merged in order.
        grid: YAML file, see :func:`read_grid`.
        out: the table, ``.csv`` or ``.parquet``; the runs go into a folder of the same name.
        words: further arguments of ``fit`` for every run; the grid overrides them.
        jobs: number of runs at a time; by default one per CPU, or the capacity of the Ray cluster.
        executor: ``local`` or ``ray``.
        gpus: GPUs per run, with Ray.

    Returns:
        The rows of the table: overrides, seed, status, seconds and CPU seconds (of a resumed run:
        since it was resumed), peak memory in bytes, final epoch and step, the metrics of the last
        validation (without a validation: the logged metrics), and the last measurement of each
        diagnostic. Peak memory is how far the private memory of the run's process has grown, see
        :class:`lit_credit.cli.sweep.cost.Cost`.

    Raises:
        ValueError: before any run, if an argument, the grid or one of the configurations is wrong,
            if the folder holds a run of another configuration, or if another sweep runs in it.
    """
    table = Path(local_path(out, "--out"))
    _check(table, words, jobs, executor, gpus)
    points, seeds = read_grid(grid)
    place: Executor
    if executor == "local":
        place = LocalProcesses(jobs or default_jobs())
    else:
        place = RayCluster(jobs, gpus)
    bases = [local_path(config, "--config") for config in configs]
    base = [*(f"--config={config}" for config in bases), *words]
    folder = table.with_suffix("").resolve()
    progress = Progress()
    with hold_folder(folder):
        cells = planned(points, seeds, base, folder, progress.planning)
        return _run(cells, place, table, progress)


def _run(
    cells: Sequence[Cell], place: Executor, path: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Run the unfinished cells, and write the table."""
    for cell in cells:
        cell.refuse_another()
    table = SweepTable(path, cells)
    before = len(cells) - len(table.todo)
    progress.planned(len(cells), before, place.jobs)
    for line in code_notes((cell.folder, cell.code) for cell in cells if cell.result()):
        print(line, flush=True)
    try:
        for number, (cell, trouble) in enumerate(run_all(table.todo, place), before + 1):
            progress.ended(number, cell, table.ended(cell), trouble)
    finally:
        rows = table.write()
    return rows


def parser() -> ShortErrorArguments:
    """The parser of the command; further words go to ``fit``."""
    made = ShortErrorArguments(
        "lit-credit sweep",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--config",
        action="append",
        required=True,
        metavar="BASE",
        help="base configuration; repeatable",
    )
    add("--grid", required=True, metavar="GRID.yaml", help="dotted names to lists of values")
    add("--out", required=True, metavar="TABLE", help="one row per run: .csv or .parquet")
    add("--jobs", type=int, metavar="N", help="number of parallel runs (one per CPU)")
    add("--executor", default="local", metavar="local|ray", help="place of the runs (local)")
    add("--gpus", type=float, default=0, metavar="G", help="GPUs per run, with ray (0)")
    return made


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a run failed, 2 after wrong arguments.

    Args:
        args: the words after ``lit-credit sweep``; by default the process's arguments.
    """
    options, words = parser().parse_known_args(args)
    start = time.perf_counter()
    try:
        rows = sweep(
            options.config,
            options.grid,
            options.out,
            words=words,
            jobs=options.jobs,
            executor=options.executor,
            gpus=options.gpus,
        )
    except (ValueError, OSError) as error:
        print(f"lit-credit sweep: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on.", file=sys.stderr)
        return 130
    failed = sum(row["status"] == "failed" for row in rows)
    seconds = time.perf_counter() - start
    print(f"{len(rows) - failed} finished, {failed} failed, {seconds:.0f} s. Table: {options.out}")
    return int(failed > 0)


def _check(table: Path, words: Sequence[str], jobs: int | None, executor: str, gpus: float) -> None:
    if table.suffix not in SUFFIXES:
        raise ValueError(
            f"--out: {str(table)!r}. Expected a file that ends in {' or '.join(SUFFIXES)}."
        )
    if table.is_dir():
        raise ValueError(f"--out: {str(table)!r} is a folder. Expected the name of a file.")
    check_folder(table.with_suffix(""), "Give another --out.")
    if executor not in _EXECUTORS:
        raise ValueError(f"--executor: {executor!r}. Expected local or ray.")
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs: {jobs}. Expected a number of runs, 1 or more.")
    if not 0 <= gpus < math.inf:
        raise ValueError(f"--gpus: {gpus:g}. Expected a number of GPUs, 0 or more.")
    if gpus and executor == "local":
        raise ValueError(f"--gpus: {gpus:g}. Only Ray hands out GPUs: add `--executor ray`.")
    for option, needed, module in (
        (f"--out: {table.suffix}", table.suffix == ".parquet", "pyarrow"),
        ("--executor: ray", executor == "ray", "ray"),
    ):
        if needed and find_spec(module) is None:
            raise ValueError(
                f"{option} needs {module}, which is not installed: "
                "`pip install 'lit-credit[sweep]'`."
            )
    for word in words:
        if word.partition("=")[0].removeprefix("--") in RESERVED:
            raise ValueError(f"{word}: the sweep sets it itself. Leave it out.")
