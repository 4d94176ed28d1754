"""Finding run folders, and reading their configurations and histories."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NoReturn

from lit_credit.former_names import with_current_paths
from lit_credit.runs.acting import ACTING_OPTIONS, acting_callbacks, own_options
from lit_credit.runs.columns import Columns, as_columns, read_columns
from lit_credit.runs.ended import last_place, may_stop, stops_short, was_tested
from lit_credit.runs.files import reason_of
from lit_credit.runs.history import Row, read_history
from lit_credit.runs.walk import walk
from lit_credit.runs.yaml_files import read_yaml
from lit_credit.utils.paths import local_path

__all__ = [
    "DIAGNOSIS",
    "STEPS",
    "Run",
    "config_number",
    "find_runs",
    "folder_of_runs",
    "history_files",
    "is_diagnosis",
    "newest_config",
    "read_configured",
    "read_ordered_columns",
    "read_ordered_rows",
    "read_run",
    "runs_below",
    "with_acting",
]

# Arguments that may differ between two seeds of one experiment, besides the seeds: where files lie
# and how they are read.
_PLACES = {"download", "num_workers"}
_ROOT = "root"
"""Argument of data sets of lit_credit, which have one content wherever they lie."""
STEPS = "optimizer steps"
"""What ``epoch`` counts in rows that are placed by steps, in words."""
DIAGNOSIS = "diagnosis.json"
"""File in which ``diagnose`` notes what a folder holds."""
_LONGEST = 1_000_000
"""Largest number of bytes of a line that are read."""
_SEED_FOLDER = re.compile(r"seed[_=-]?(\d{1,18})", re.IGNORECASE)
_VERSION_FOLDER = re.compile(r"version_\d+")
_LOGS = "lightning_logs"
"""Folder that Lightning's loggers make by default."""
_TRAINER = ("max_epochs", "max_steps", "limit_train_batches", "precision")


@dataclass(frozen=True)
class Run:
    """One training run, read from its folder.

    Args:
        folder: the run's folder.
        rule: name of the rule's class.
        seed: ``seed_everything``; None if the run has no seed.
        seeds: all seeds of the configuration. Two runs with equal seeds are the same run.
        experiment: rule, model, data, length of training, and what else acts on it, without seeds
            and paths. Runs that differ only by their seeds have equal ones.
        setting: net, data and options of training, which a rule shares with its baseline.
        subject: net and data in words.
        max_epochs: epochs after which training ends; None for any number.
        max_steps: optimizer steps after which training ends; -1 for any number.
        histories: rows of each history, by the stem of its file.
        class_path: class path of the rule; empty if the folder has no configuration.
        task: class path of the task; empty if there is none.
        callbacks: class paths of the callbacks.
        metrics: names of metrics that the configuration adds to those of the task.
        place: what ``epoch`` in the rows of ``histories`` counts.
        measured: the rows with their own epochs, if ``epoch`` in ``histories`` counts steps.
        config: the whole configuration; empty if the folder has none.
        acting: callbacks that act on training, by the name of their class.
        may_stop: whether a callback or ``max_time`` may end training at any time.
    """

    folder: Path
    rule: str
    seed: int | None
    seeds: str
    experiment: str
    setting: str
    subject: str
    max_epochs: int | None
    max_steps: int
    histories: Mapping[str, Sequence[Row]]
    class_path: str = ""
    task: str = ""
    callbacks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    place: str = "epochs of training"
    measured: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    acting: Mapping[str, Any] = field(default_factory=dict)
    may_stop: bool = False

    @property
    def data_seeds(self) -> str:
        """The seeds of the data."""
        return repr([*_seeds(self.config.get("data"))])

    @property
    def compared(self) -> dict[str, Any]:
        """What ``experiment`` is made of: the configuration without seeds, paths and watchers."""
        if not self.config:
            return {}
        trainer = self.config.get("trainer") or {}
        options = {key: trainer.get(key) for key in _TRAINER}
        options |= {**ACTING_OPTIONS, **own_options(trainer)}
        parts = {key: self.config.get(key) or {} for key in ("model", "data")}
        parts |= _initial_weights(self.config)
        callbacks = {"callbacks": self.acting} if self.acting else {}
        return dict(_without_seeds({**parts, "trainer": options, **callbacks}))

    @property
    def last_epoch(self) -> int:
        """The last epoch at which anything was measured."""
        return last_place(self.measured or self.histories, "epoch")

    @property
    def last_step(self) -> int:
        """The last optimizer step at which anything was measured."""
        return last_place(self.histories, "step")

    @cached_property
    def unfinished(self) -> bool:
        """Whether the run stopped before its configured number of epochs or steps.

        Only where rows tell: not where a callback may end training at any time, and not of a
        diagnosis of checkpoints. A run that was tested after its last step is finished.
        """
        epochs = -1 if self.max_epochs is None else self.max_epochs
        if 0 <= epochs <= self.last_epoch or max(epochs, self.max_steps) < 0:
            return False
        if self.may_stop or was_tested(self.histories) or is_diagnosis(self.folder):
            return False
        length = {"max_epochs": epochs, "max_steps": self.max_steps}
        trainer = {**(self.config.get("trainer") or {}), **length}
        return stops_short(self.measured or self.histories, trainer)


def folder_of_runs(path: str | Path) -> Path:
    """A folder that the command line names as RUN.

    Args:
        path: the folder.

    Returns:
        The folder.

    Raises:
        ValueError: if there is no such folder; if it is the table of a sweep, the error names the
            folder of the sweep's runs.
    """
    folder = Path(local_path(path, "RUN"))
    if not folder.is_dir():
        trouble, hint = f"no folder {str(path)!r}", "folders that runs were written to"
        if folder.is_file():
            beside, trouble = folder.with_suffix(""), f"{str(path)!r} is a file, not a folder"
            hint = f"{str(folder.parent)!r}, its folder"
            if beside.is_dir():
                hint = f"{str(beside)!r}, which holds the runs of this table"
        raise ValueError(f"RUN: {trouble}. Give {hint}.")
    return folder


def find_runs(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find folders with a history, among ``paths`` and anywhere below them.

    A folder with a ``config.yaml`` is a run. A folder without one is a run too, unless it lies in a
    run: there, it holds what ``validate``, ``test`` or ``diagnose`` measured.

    Links to folders are followed, see :func:`lit_credit.runs.walk.walk`. A run that is reached in
    two ways is one run.

    Args:
        paths: run folders, or folders that contain run folders; one or several.

    Returns:
        Each run folder once, in the order of the arguments, sorted below each.

    Raises:
        ValueError: if a path is not a folder, or holds no run.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: dict[Path, Path] = {}
    for path in map(folder_of_runs, paths):
        runs = runs_below(path)
        if not runs:
            raise ValueError(
                f"RUN: no run in {str(path)!r}: nowhere below it is a folder with a history, such "
                "as metrics.jsonl. Give a folder that `lit-credit fit` wrote to."
            )
        for folder in runs:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def runs_below(path: Path, *, links: bool = True) -> list[Path]:
    """The run folders among a folder and all below it, sorted.

    Args:
        path: the folder.
        links: whether links to folders are followed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise ValueError(f"RUN: {error.filename} cannot be read: {reason_of(error)}. Leave it out.")

    holding = sorted(
        Path(at)
        for at, _, files in walk(path, refuse, links=links)
        if any(name.endswith(".jsonl") for name in files)
    )
    holding = [folder for folder in holding if history_files(folder)]
    known = set(holding)

    def is_run(folder: Path) -> bool:
        inside = not known.isdisjoint(folder.parents)
        if (folder / "config.yaml").exists():
            return not (inside and is_diagnosis(folder))
        return not inside

    return [folder for folder in holding if is_run(folder)]


def is_diagnosis(folder: Path) -> bool:
    """Whether a folder holds what ``diagnose`` has measured over checkpoints."""
    return (folder / DIAGNOSIS).exists()


def read_run(folder: str | Path, histories: Callable[[Run], Iterable[str]] | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: the folder with histories and ``config.yaml``, the full configuration of a
            LightningCLI. If the run was resumed with other configurations (``config-N.yaml``), the
            newest is read. Without a configuration the run is an experiment of its own, named after
            its folder; a folder ``NAME/seed_1`` is named after NAME.
        histories: maps the run as configured to the names of the histories to read; their rows must
            be in order, and names that the folder lacks are left out. None reads all histories.

    Raises:
        ValueError: if there is no such folder, the configuration does not name the rule, or a
            history has no rows.
    """
    run = read_configured(folder)
    folder = run.folder
    if histories is None:
        return replace(
            run, histories={file.stem: _read_rows(file) for file in history_files(folder)}
        )
    files = [folder / f"{name}.jsonl" for name in histories(run)]
    return replace(
        run, histories={file.stem: read_ordered_rows(file) for file in files if file.is_file()}
    )


def read_configured(folder: str | Path) -> Run:
    """Read the configuration of a run folder, and none of its histories; see :func:`read_run`."""
    folder = Path(local_path(folder, "folder"))
    if not folder.is_dir():
        raise ValueError(
            f"`folder` is {str(folder)!r}, expected a folder that a run was written to."
        )
    path = newest_config(folder)
    if not path.exists():
        return _unconfigured(folder)
    config = _read_config(path)
    if not _is_foreign(config):
        return _configured(folder, path, config)
    run, seed = _unconfigured(folder), config.get("seed_everything")
    return replace(run, seed=seed) if run.seed is None and type(seed) is int else run


def _is_foreign(config: Any) -> bool:
    """Whether a configuration is another program's.

    That is another LightningCLI, whose program names the classes, or a program of another kind,
    whose configuration has neither ``trainer`` nor ``seed_everything``.
    """
    if not isinstance(config, dict) or not config:
        return False
    if not {"trainer", "seed_everything"} & set(config):
        model = config.get("model")
        return not (isinstance(model, dict) and "class_path" in model)
    if "trainer" not in config:
        return False
    model = config.get("model")
    return isinstance(model, dict) and bool(model) and not {"class_path", "init_args"} & set(model)


def history_files(folder: Path) -> list[Path]:
    """All ``*.jsonl`` files of the folder that begin as a history does, sorted by name."""
    return sorted(path for path in folder.glob("*.jsonl") if _begins_as_history(path))


def _begins_as_history(path: Path) -> bool:
    """Whether a file may be a history; a file that is empty or cannot be read may be one."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST)
    except OSError:
        return path.is_file()
    return not line or (line.lstrip().startswith(b"{") and b'"values"' in line)


def _configured(folder: Path, path: Path, config: dict[str, Any]) -> Run:
    _refuse_without_class(path, config)
    model, data, trainer = (_mapping(config, key, path) for key in ("model", "data", "trainer"))
    options = _options(trainer)
    arguments = _mapping(model, "init_args", path)
    net = arguments.get("net")
    seed = config.get("seed_everything")
    if type(seed) not in (int, bool, type(None)):
        _refuse(path, f"`seed_everything` is {seed!r}, expected a whole number.")
    seeds = [("seed_everything", seed), *_seeds((model, data))]
    callbacks = trainer.get("callbacks")
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    acting = acting_callbacks(callbacks)
    paths = tuple(name for name in map(_class_path, listed) if name)
    return Run(
        folder=folder,
        rule=model["class_path"].rpartition(".")[2],
        seed=seed if type(seed) is int else None,
        seeds=repr(seeds),
        experiment=_experiment(config, acting),
        setting=json.dumps(_without_seeds((net, data, options)), default=str),
        subject=f"{_class_name(net)} on {_class_name(data)}",
        max_epochs=_count(trainer, "max_epochs", path),
        max_steps=-1 if (steps := _count(trainer, "max_steps", path)) is None else steps,
        histories={},
        class_path=model["class_path"],
        task=_class_path(arguments.get("task")),
        callbacks=paths,
        metrics=_added_metrics(arguments.get("task")),
        config=config,
        acting=acting,
        may_stop=trainer.get("max_time") is not None or any(map(may_stop, paths)),
    )


def with_acting(run: Run, acts: Callable[[str], bool | None]) -> Run:
    """The run, with an experiment of the callbacks that act on training.

    Args:
        run: a run as :func:`read_configured` reads it. There, a callback that is neither of
            lit_credit nor of Lightning counts as one that acts.
        acts: maps the import path of a callback to whether it acts.
    """
    acting = acting_callbacks((run.config.get("trainer") or {}).get("callbacks"), acts)
    if acting == run.acting:
        return run
    return replace(run, acting=acting, experiment=_experiment(run.config, acting))


def _experiment(config: Mapping[str, Any], acting: Mapping[str, Any]) -> str:
    model, data, trainer = (config.get(key) or {} for key in ("model", "data", "trainer"))
    parts = [model, data, _options(trainer), *_initial_weights(config).values()]
    parts += [{"callbacks": acting}] if acting else []
    return json.dumps(_without_seeds(parts), default=str)


def _options(trainer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: trainer.get(key) for key in _TRAINER} | own_options(trainer)


def _initial_weights(config: Mapping[str, Any]) -> dict[str, str]:
    """Whose weights the run began with, as ``init_from``; empty if with its own.

    A folder ``seed_1`` in the path is one of a seed, so that the seeds of an experiment may each
    begin with weights of their own.
    """
    path = config.get("init_from")
    return {"init_from": re.sub(r"seed[_=-]?\d+", "seed", str(path))} if path else {}


def _unconfigured(folder: Path) -> Run:
    """A run of a folder ``NAME``, or of ``NAME/seed_1``: then its seed is 1."""
    place = _without_versions(folder.resolve())
    seed = _SEED_FOLDER.fullmatch(place.name)
    experiment = place.parent if seed else place
    return Run(
        folder=folder,
        rule=_name_of(experiment),
        seed=int(seed[1]) if seed else None,
        seeds=place.name if seed else "",
        experiment=str(experiment),
        setting=str(experiment),
        subject="",
        max_epochs=None,
        max_steps=-1,
        histories={},
    )


def _without_versions(folder: Path) -> Path:
    """The folder above ``version_N`` and ``lightning_logs``, if it holds no other version."""
    if not _VERSION_FOLDER.fullmatch(folder.name):
        return folder
    versions = [path for path in folder.parent.iterdir() if _VERSION_FOLDER.fullmatch(path.name)]
    if len(versions) > 1:
        return folder
    return folder.parent.parent if folder.parent.name == _LOGS else folder.parent


def _name_of(folder: Path) -> str:
    """The folder's name; with the name above if it is a version."""
    if not _VERSION_FOLDER.fullmatch(folder.name):
        return folder.name
    above = folder.parent.parent if folder.parent.name == _LOGS else folder.parent
    return f"{above.name}/{folder.name}"


def newest_config(folder: Path) -> Path:
    """The newest configuration of a run: ``config-N.yaml`` of the largest N, or ``config.yaml``."""
    return max([folder / "config.yaml", *folder.glob("config-*.yaml")], key=config_number)


def config_number(path: Any) -> int:
    """The number N of a path ``config-N.yaml``; 0 for any other path."""
    found = re.fullmatch(r"config-(\d+)\.yaml", PurePath(path).name)
    return int(found[1]) if found else 0


def _read_config(path: Path) -> Any:
    try:
        config = with_current_paths(read_yaml(path))
    except OSError as error:
        _refuse(path, f"cannot be read: {reason_of(error)}.")
    except ValueError as error:
        _refuse(path, str(error))
    return config


def _refuse_without_class(path: Path, config: Any) -> None:
    model = config.get("model") if isinstance(config, dict) else None
    name = model.get("class_path") if isinstance(model, dict) else None
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        _refuse(path, "no class at `model.class_path`.")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ValueError(
        f"{path}: {reason} Expected the configuration of a run, with a class at "
        "`model.class_path`. Restore the file, or leave this folder out."
    )


def _mapping(config: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict | None):
        _refuse(path, f"`{key}` is {str(value)[:60]!r}, expected a mapping.")
    return value or {}


def _count(trainer: dict[str, Any], key: str, path: Path) -> int | None:
    value = trainer.get(key)
    if type(value) not in (int, type(None)):
        _refuse(path, f"`trainer.{key}` is {str(value)[:60]!r}, expected a whole number.")
    return value


def read_ordered_rows(path: Path) -> list[Row]:
    """Read the rows of a history, and check their order.

    Raises:
        ValueError: if there are no rows, a row is broken, or the rows are not in the order of a
            run.
    """
    rows = _read_rows(path)
    for number, (row, following) in enumerate(pairwise(rows), 2):
        before, after = ([r["step"], r["epoch"]] for r in (row, following))
        if before == after or after[0] < before[0] or after[1] < before[1]:
            raise ValueError(
                f"{path}, line {number}: step {after[0]} of epoch {after[1]} comes after step "
                f"{before[0]} of epoch {before[1]}. Put the lines of one run in order, each once, "
                "or leave this run out."
            )
    return rows


def read_ordered_columns(path: Path, keep: Callable[[str], bool] = lambda tag: True) -> Columns:
    """Read a history as :func:`read_ordered_rows` does, as columns.

    Args:
        path: the file.
        keep: whether the values of a tag are wanted.

    Raises:
        ValueError: see :func:`read_ordered_rows`.
    """
    try:
        found = read_columns(path, keep) or as_columns(read_ordered_rows(path), keep)
    except OSError as error:
        _unreadable(path, error)
    if found is None:
        raise ValueError(f"{path}: a number beyond float64. Remove its line, or the file.")
    return found


def _unreadable(path: Path, error: OSError) -> NoReturn:
    raise ValueError(f"{path}: cannot be read: {reason_of(error)}. Leave this run out.") from error


def _read_rows(path: Path) -> list[Row]:
    try:
        rows = read_history(path)
    except OSError as error:
        _unreadable(path, error)
    if not rows:
        raise ValueError(f"{path}: no rows. Remove the file, or leave this run out.")
    return rows


def _class_path(node: Any) -> str:
    path = node.get("class_path") if isinstance(node, dict) else node
    return path if isinstance(path, str) else ""


def _added_metrics(task: Any) -> tuple[str, ...]:
    arguments = task.get("init_args") if isinstance(task, dict) else None
    metrics = arguments.get("metrics") if isinstance(arguments, dict) else None
    return tuple(map(str, metrics)) if isinstance(metrics, dict) else ()


def _class_name(node: Any) -> str:
    path = node.get("class_path") if isinstance(node, dict) else None
    return str(path).rpartition(".")[2] if path else "net"


def _is_seed(key: str) -> bool:
    return key == "seed" or key.endswith("_seed")


def _without_seeds(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {str(k): v for k, v in node.items()}
        kept = {k: v for k, v in kept.items() if not _is_seed(k) and k not in _PLACES}
        if _has_one_content(_class_path(node)) and isinstance(
            arguments := kept.get("init_args"), dict
        ):
            kept["init_args"] = {k: v for k, v in arguments.items() if k != _ROOT}
        return {key: _without_seeds(kept[key]) for key in sorted(kept)}
    if isinstance(node, list | tuple):
        return [_without_seeds(item) for item in node]
    return node


def _has_one_content(path: str) -> bool:
    """Whether a class of data has one content, so that its ``root`` is only a path.

    Data sets of lit_credit have, except ``ImageFolder``. A class of another package may read other
    data from another ``root``.
    """
    return path.startswith("lit_credit.") and not path.endswith(".ImageFolder")


def _seeds(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            if _is_seed(str(key)):
                yield f"{at}.{key}", value
            else:
                yield from _seeds(value, f"{at}.{key}")
