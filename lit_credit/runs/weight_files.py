"""Reading the weights that any project has saved, in a file or in a folder of Hugging Face."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import EXTRA_STATE
from lit_credit.utils.short_text import choice

__all__ = ["is_weights_folder", "read_saved", "tensors_of", "trained_weights", "what_lies_near"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_OF_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files of a Hugging Face folder that hold its weights, or list the files that do."""
_AVERAGED = "current_model_state"
"""Where Lightning saves the trained weights if a callback averages them."""
_TRAINED = "trained_weights"
"""Where a rule saves them if its optimizer evaluates others."""
_Found = tuple[str, Mapping[str, Any]]
_DEEPEST = 4
_SHOWN = 10
_NOT_WEIGHTS = ("optim", "sched", "scaler", "rng", EXTRA_STATE)
"""Keys that contain these hold the state of an optimizer, a scheduler or a generator."""


def read_saved(path: str | Path, key: str | None = None, argument: str = "path") -> dict[str, Any]:
    """Read a file of weights, or a folder that Hugging Face has saved.

    Tensors are on the CPU. Where the format allows, they are mapped from the disk: only what is
    used is read. Nothing in the file is run (``weights_only=True``).

    Args:
        path: a file of ``torch.save``, a ``.safetensors`` file, or a Hugging Face folder
            (``model.safetensors``, ``pytorch_model.bin``, or the index of several such files).
        key: where the ``state_dict`` lies in the file, with dots between nested keys:
            ``"train.model"``; or the prefix that the tensors of one net have in the file. None
            takes what lies at ``state_dict``, ``model_state_dict`` or ``model``, or the file
            itself, or the only tensors by name inside it.
        argument: the argument that the path comes from, for errors.

    Returns:
        The contents. The tensors by name lie at ``state_dict``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, holds objects other than tensors and plain data, no
            tensors by name, or those of several nets.
    """
    path = local_path(path, argument)
    if not is_remote(path) and not Path(path).exists():
        raise FileNotFoundError(
            f"`{argument}` is {path!r}, which does not exist. {what_lies_near(Path(path))}"
        )
    try:
        if not is_remote(path) and Path(path).is_dir():
            found = _of_folder(Path(path))
        else:
            found = _of_file(path)
        weights = _state_dict(found) if key is None else _at_key(found, key)
    except ValueError as error:
        about = "" if str(path) in str(error) else f"{path}: "
        raise ValueError(f"`{argument}`: {about}{error}") from error
    if weights is found:  # a bare state_dict, maybe with a counter beside the tensors
        others = {name: value for name, value in found.items() if not isinstance(value, Tensor)}
        return {**others, "state_dict": weights}
    return {**found, "state_dict": weights}


def tensors_of(weights: Any) -> dict[str, Tensor]:
    """The tensors by name of a ``state_dict``; empty if it is not one."""
    if not isinstance(weights, Mapping):
        return {}
    return {n: v for n, v in weights.items() if isinstance(n, str) and isinstance(v, Tensor)}


def trained_weights(found: Mapping[str, Any]) -> dict[str, Any]:
    """The weights that were trained, also if those at ``state_dict`` are others made of them."""
    return {**found.get(_AVERAGED, found["state_dict"]), **found.get(_TRAINED, {})}


def is_weights_folder(path: Path) -> bool:
    """Whether a folder is the weights of one net, as Hugging Face saves them."""
    return any((path / name).is_file() for name in _OF_FOLDERS)


def what_lies_near(path: Path) -> str:
    """Text about the nearest folder of a path that exists, and what lies there."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.is_dir())
    names = sorted(inner.name + "/" * inner.is_dir() for inner in nearest.iterdir())
    return f"In {nearest} lie: {choice(names, path.name, most=_SHOWN)}."


def _of_folder(folder: Path) -> dict[str, Any]:
    first = next((folder / name for name in _OF_FOLDERS if (folder / name).is_file()), None)
    if first is None:
        return read_checkpoint(folder)  # which names the checkpoints in it
    files = [first]
    if first.suffix == ".json":
        names = sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise ValueError(
                f"{folder} lacks {choice(absent, most=4)} of the {len(files)} files that "
                f"{first.name} lists. Download or copy them too."
            )
    parts = [_of_file(str(file)) for file in files]
    found = parts[0]
    if len(parts) > 1:
        found = {"state_dict": {n: v for part in parts for n, v in _state_dict(part).items()}}
    state = folder / "trainer_state.json"
    if state.is_file():
        step = json.loads(state.read_text(encoding="utf-8")).get("global_step")
        return {"state_dict": _state_dict(found), "global_step": step}
    return found


def _of_file(path: str) -> dict[str, Any]:
    if not is_remote(path) and _begins_with(path, b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a pointer of Git LFS, in place of the file. Run `git lfs pull` there."
        )
    if path.endswith(".safetensors"):
        return _of_safetensors(path)
    if not is_remote(path) and Path(path).is_file():
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # not a zip file, cut off, or with code inside: told below
            pass
        else:
            if isinstance(found, dict):
                return found
    return read_checkpoint(path)


def _begins_with(path: str, text: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(text)) == text


def _of_safetensors(path: str) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path} needs the package safetensors, which is not installed: "
            "`pip install safetensors`."
        ) from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except SafetensorError as error:
        size = Path(path).stat().st_size
        raise ValueError(
            f"{path} ({size} bytes) is cut off, or no safetensors file: {error}. Save or download "
            "it again."
        ) from error
    numbers = {name: int(text) for name, text in about.items() if text.isdecimal()}
    return {**numbers, "state_dict": found}


def _state_dict(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state_dict of a file; raises ValueError if there is none, or one of several to choose."""
    for name in _WRAPPERS:
        inner = found.get(name)
        if isinstance(inner, Mapping) and tensors_of(inner):
            return inner
    deeper = dict(_inside(found))
    if len(deeper) == 1:
        return next(iter(deeper.values()))
    if deeper:
        raise ValueError(
            f"the file holds {len(deeper)} nets ({choice(deeper, most=4)}), and nothing says which "
            f"is meant. In Python, give `key={next(iter(deeper))!r}`; or save the one that is "
            "meant in a file of its own."
        )
    if tensors_of(found):
        return found
    raise ValueError(
        f"the file holds {choice(map(str, found), most=4)}{' only' if found else ''}, and no "
        "tensors by name: expected a `state_dict`, bare or below a key such as "
        f"{', '.join(_WRAPPERS)}."
    )


def _inside(found: Mapping[str, Any], at: str = "", depth: int = 0) -> Iterator[_Found]:
    """The mappings of tensors that lie inside another, by their dotted keys."""
    for name, inner in found.items():
        if not isinstance(name, str) or not isinstance(inner, Mapping) or depth >= _DEEPEST:
            continue
        if any(part in name.lower() for part in _NOT_WEIGHTS):
            continue
        nested = list(_inside(inner, f"{at}{name}.", depth + 1))
        if nested:
            yield from nested
        elif tensors_of(inner):
            yield f"{at}{name}", inner


def _at_key(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The state_dict at a dotted key, or the tensors below a prefix."""
    inner = _get(found, key)
    if isinstance(inner, Mapping):
        return _state_dict(inner)
    for place in (*(found.get(name) for name in _WRAPPERS), found):
        tensors = tensors_of(place)
        below = {n.removeprefix(f"{key}."): v for n, v in tensors.items() if n != key}
        below = {n: v for n, v in below.items() if n not in tensors}
        if below:
            return below
    places = [name for name, _ in _inside(found)] or list(map(str, found))
    raise ValueError(
        f"`key` is {key!r}, and no tensors lie there. Choose from: {choice(places, key, most=10)}."
    )


def _get(found: Any, key: str) -> Any:
    """The entry at a dotted key; a key may have dots of its own."""
    parts = key.split(".")
    for n in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:n]), ".".join(parts[n:])
        if isinstance(found, Mapping) and head in found:
            inner = _get(found[head], rest) if rest else found[head]
            if inner is not None:
                return inner
    return None
