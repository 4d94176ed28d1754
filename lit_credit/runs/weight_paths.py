"""Finding files and folders of weights: a path, a pattern, or all that lie in a folder."""

import glob
import re
from collections.abc import Iterable
from os import PathLike, fspath
from os.path import abspath
from pathlib import Path

from lit_credit.runs.walk import walk
from lit_credit.runs.weight_files import is_weights_folder, what_lies_near
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.short_text import choice

__all__ = ["existing_weights", "expanded_weights"]

_ENDINGS = {".ckpt", ".pt", ".pth", ".bin", ".safetensors"}
_LONGER = (".pth.tar", ".pt.tar")
_BESIDE = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "adapter_")
"""Beginnings of the names of other files that Hugging Face and others save beside weights."""
_MEMBERS = "members"  # checkpoints of an ensemble's members, which are other nets
_SHOWN = 10


def existing_weights(path: str | PathLike[str]) -> Path:
    """A file or folder of weights; of one of several parts, the folder.

    Raises:
        ValueError: if the path is a URL.
        FileNotFoundError: if it does not exist; the error says what lies near.
    """
    text = local_path(path, "checkpoints")
    if is_remote(text):
        raise ValueError(
            f"`checkpoints` is {fspath(path)}, a URL. Download it first and give the local path, "
            "or give (step, state_dict)."
        )
    found = Path(text)
    if not found.exists():
        raise FileNotFoundError(
            f"`checkpoints` is {text!r}, which does not exist. {what_lies_near(found)} Models of "
            "the Hugging Face hub must be downloaded first; give their local folders."
        )
    return _whole(found)


def expanded_weights(path: str | PathLike[str]) -> list[Path]:
    """The files and folders of weights that a path, a pattern or a folder means.

    Raises:
        ValueError: if nothing is found; the error says what lies near.
        FileNotFoundError: if the path does not exist.
    """
    text = local_path(path, "checkpoints")
    if not is_remote(text) and not Path(text).exists() and glob.has_magic(text):
        # Folders that exist are meant as they are written, also with brackets in their names.
        there = next(folder for folder in Path(text).parents if folder.exists())
        rest = str(Path(text).relative_to(there))
        matches = [there / match for match in glob.glob(rest, root_dir=there, recursive=True)]
        found = [w for match in matches for w in (_below(match) if match.is_dir() else [match])]
        found = [w for w in found if not _is_beside(w)]
        if not found:
            seen = f" It matches {choice([m.name for m in matches], most=_SHOWN)}." * bool(matches)
            raise ValueError(
                f"`checkpoints` is {text!r}, a pattern that matches no weights.{seen} "
                f"{what_lies_near(Path(text))}"
            )
        return _unique(map(_whole, found))
    found_path = existing_weights(path)
    if not found_path.is_dir():
        return [found_path]
    if not (weights := _below(found_path)):
        raise ValueError(
            f"`checkpoints` is {text!r}, a folder without weights ({', '.join(sorted(_ENDINGS))}). "
            f"{what_lies_near(found_path)}"
        )
    return _unique(map(_whole, weights))


def _below(folder: Path) -> list[Path]:
    """The files and Hugging Face folders of weights in a folder and below, also behind links."""
    found: list[Path] = []
    for place, folders, files in walk(folder):
        here = Path(place)
        folders[:] = sorted(f for f in folders if f != _MEMBERS and not f.startswith("."))
        series = [here / f for f in folders if is_weights_folder(here / f)]
        if is_weights_folder(here):
            # The result of a training, beside the folders of its checkpoints, is one of these.
            if not series:
                found.append(here)
        else:
            weights = [here / f for f in files if Path(f).suffix in _ENDINGS or f.endswith(_LONGER)]
            found += sorted(w for w in weights if not _is_beside(w))
        found += series
        folders[:] = [f for f in folders if here / f not in series]
    return found


def _is_beside(path: Path) -> bool:
    """Whether a file is none of weights, by its name."""
    is_known = path.suffix in _ENDINGS or path.name.endswith(_LONGER)
    other = not is_known and path.suffix[1:].isalpha()
    return path.is_file() and (other or path.name.startswith(_BESIDE))


def _whole(path: Path) -> Path:
    """The Hugging Face folder that a file is one of several parts of; else the path."""
    folder = path.parent
    is_part = path.name.endswith(".index.json") or re.search(r"-\d+-of-\d+\.\w+$", path.name)
    return folder if is_part and is_weights_folder(folder) else path


def _unique(paths: Iterable[Path]) -> list[Path]:
    """Each path once, without links to another of them in the same folder."""
    # Links to one file in two folders are revisions in the cache of Hugging Face.
    found = list({abspath(path): path for path in paths}.values())
    files = {(path.parent, path.resolve()) for path in found if not path.is_symlink()}
    return [p for p in found if not (p.is_symlink() and (p.parent, p.resolve()) in files)]
