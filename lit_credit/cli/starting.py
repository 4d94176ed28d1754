"""The start of a run: from scratch, from a checkpoint, or from weights."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, dict_to_namespace, namespace_to_dict
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from lit_credit.rules import CreditRule
from lit_credit.rules.checkpoints.described import PLACES
from lit_credit.rules.checkpoints.resume import POLICIES
from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.runs.earlier_arguments import with_earlier_arguments
from lit_credit.runs.files import check_folder
from lit_credit.runs.foreign_weights import load_weights
from lit_credit.runs.lock import hold_folder
from lit_credit.runs.run_checkpoints import (
    checkpoint_files,
    checkpoint_folders,
    find_last,
    run_folders,
)
from lit_credit.runs.trusted_classes import check_code
from lit_credit.trainer.trainer import is_fast_dev_run
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import CLASS_PATH, INSTANTIATOR
from lit_credit.utils.short_text import choice

__all__ = ["add_options", "checkpoint_of", "start_from_weights", "take_checkpoint", "take_folders"]


def add_options(parser: Any) -> None:
    """Add the options of ``fit`` that stand beside ``--ckpt_path``; all commands read them."""
    parser.add_argument(
        "--on_resume",
        type=str | None,
        default=None,
        help="where configuration and checkpoint differ: refuse (default), or go on with what is "
        "`configured`, or with that of the `checkpoint`",
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="file with weights of any project, a state_dict, that the net starts from",
    )
    parser.add_argument(
        "--test_after_fit",
        type=bool,
        default=True,
        help="whether `fit` tests the trained weights once at its end, if the data have test data "
        "that they do not validate on",
    )


def checkpoint_of(
    config: Namespace, command: str, trainer: Trainer, rule: str
) -> Path | str | None:
    """The checkpoint that ``--ckpt_path`` means; ``last`` is looked up in the run's folders.

    Raises:
        ValueError: for ``best``, which only the training process knows; for ``last`` without a
            checkpoint, except in ``fit`` or with ``--init_from``; or if ``--on_resume`` is wrong.
    """
    word, policy = config.get("ckpt_path"), config.get("on_resume")
    if policy is not None and (command != "fit" or policy not in POLICIES):
        expected = f"one of {', '.join(POLICIES)}" if command == "fit" else "nothing: it is of fit"
        raise ValueError(f"`--on_resume` is {policy!r}, expected {expected}.")
    if word == "best":
        files = choice(sorted(map(str, checkpoint_files(trainer))))
        raise ValueError(
            "`--ckpt_path best`: which one is best is known to the process that trained. Give the "
            f"file. There are: {files}."
        )
    if word is None and command != "fit" and config.get("init_from") is None:
        rank_zero_info(
            f"No --ckpt_path: {command} takes the initial weights. `--ckpt_path last` takes the "
            "newest checkpoint of the run."
        )
    if word != "last":
        return None if word is None else str(word)
    found = find_last(trainer, rule, config.get("seed_everything"))
    if found is None and command != "fit" and not config.get("init_from"):
        places = ", ".join(map(str, run_folders(trainer)))
        raise ValueError(
            f"`--ckpt_path last`: {places} holds no checkpoint of {rule}. Give the file."
        )
    return found


def take_checkpoint(cli: LightningCLI, path: Path | str) -> bool:
    """Replace the configured rule, data, seed and Trainer options by those of a checkpoint.

    Args:
        cli: the CLI with its parsed ``config``.
        path: the checkpoint.

    Returns:
        Whether the configuration has changed. If so, everything must be built again.
    """
    config = cli.config[cli.subcommand]
    checkpoint = read_checkpoint(path)
    arguments = dict(checkpoint.get("hyper_parameters") or {})
    saved = checkpoint.get("configuration") or {}
    data = with_earlier_arguments(saved.get("data"))
    check_code(arguments, CreditRule, path)
    check_code({"data": data}, CreditRule, path)
    kind, _ = arguments.pop(CLASS_PATH, None), arguments.pop(INSTANTIATOR, None)
    before = config.clone()
    new: dict[str, Any] = {}
    if kind is not None:
        new["model"] = {"class_path": kind, "init_args": arguments}
    else:  # saved from Python, without a class: the arguments hold numbers and names, no objects
        own = config.model.init_args
        new["model"] = {"init_args": {k: v for k, v in arguments.items() if k in own}}
    if isinstance(data, Mapping) and config.get("data") is not None:
        own = config.data.get("init_args") or {}
        places = {name: own[name] for name in PLACES if name in own}
        same = {k: v for k, v in data.get("init_args", {}).items() if k not in PLACES}
        new["data"] = {"class_path": data["class_path"], "init_args": {**same, **places}}
    if saved.get("seed_everything") is not None:
        new["seed_everything"] = saved["seed_everything"]
    trainer = saved.get("trainer") or {}
    new["trainer"] = {name: value for name, value in trainer.items() if name in config.trainer}
    if kind is not None and kind != config.model.class_path:
        config.model = dict_to_namespace({"class_path": kind, "init_args": {}})
    cli.config = cli.parser.parse_object({cli.subcommand: new}, cli.config)
    return bool(cli.config[cli.subcommand] != before)


def start_from_weights(config: Namespace, model: Any, resumes: bool) -> None:
    """Load ``--init_from`` into the net, unless the run goes on from its own checkpoint.

    Raises:
        ValueError: if a checkpoint file is given too, or the weights do not fit.
    """
    path = config.get("init_from")
    if path is None:
        return
    if resumes and config.get("ckpt_path") != "last":
        raise ValueError(
            f"`--init_from` is {path} and `--ckpt_path` is {config.ckpt_path}: the checkpoint has "
            "weights of its own. Leave one of them out."
        )
    if not resumes:
        load_weights(model.net, path, "init_from")


def take_folders(
    trainer: Trainer, word: str | None, checkpoint: str | None, held: ExitStack
) -> None:
    """Lock the folders of a run, and refuse a folder that holds another run.

    Args:
        trainer: the Trainer of the run.
        word: the value of ``--ckpt_path``; ``last`` was looked up in these folders.
        checkpoint: the checkpoint that ``word`` means.
        held: releases the folders when the run ends.

    Raises:
        MisconfigurationException: if a folder has the ``config.yaml`` of a run that this run does
            not resume.
        ValueError: if a folder is not writable, or another process is writing there.
    """
    # The first rank locks the folder for all ranks.
    if is_fast_dev_run(trainer) or not trainer.is_global_zero:
        return
    for folder in {folder.resolve(): folder for folder in run_folders(trainer)}.values():
        check_folder(folder)
        held.enter_context(hold_folder(folder))
        holds = word != "last" and Path(folder, "config.yaml").exists()
        if holds and not _resumes(trainer, folder, checkpoint):
            raise MisconfigurationException(
                f"{folder} holds a run already. Resume it with `--ckpt_path last`, or choose "
                "another folder with `--trainer.default_root_dir`, or another seed with "
                "`--seed_everything`."
            )


def _resumes(trainer: Trainer, folder: Path, checkpoint: str | None) -> bool:
    """Whether training goes on from a checkpoint of the run in ``folder``."""
    if checkpoint is None:
        return False
    if is_remote(checkpoint) or not Path(checkpoint).exists():
        return True  # a keyword of Lightning, or a missing file, which Lightning reports
    places: list[str | Path] = [folder, *checkpoint_folders(trainer)]
    own = [Path(local_path(place)).resolve() for place in places]
    return any(place in Path(checkpoint).resolve().parents for place in own)


def configured_data(config: Namespace) -> dict[str, Any]:
    """The configured seed and data, which the checkpoints of the run record."""
    data = config.get("data")
    found: dict[str, Any] = {"seed_everything": config.get("seed_everything")}
    if data is not None:
        found["data"] = namespace_to_dict(data)
    return found
