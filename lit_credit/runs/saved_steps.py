"""Telling steps and epochs of saved weights, from the file and from its name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["SERIES_ENTRY", "epochs_in", "step_in", "step_of_name"]

SERIES_ENTRY = "lit_credit_series"
"""Entry of a checkpoint that ``SpacedCheckpoints`` writes: ``{"epochs_completed": n}``."""
_STEPS = ("global_step", "step", "steps", "iter", "iteration", "iter_num", "global_steps")
_WORD = r"(?:steps?|iter(?:ation)?s?|iter_num|updates?)"
_COUNTED = re.compile(
    rf"{_WORD}[=_\- ]?(\d+)([km]?)(?![\da-z])|(?<!\d)(\d+)([km]?)_?{_WORD}(?![a-z]|[=_\- ]?\d)"
)
_EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep)[=_\- ]?(\d+)()(?![\da-z])")
_NUMBER = re.compile(r"(?<!\d)(?<!\d\.)(\d+)(k?)(?![\da-z]|\.\d)")
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}
_HASH = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = {"model", "pytorch_model"}
"""Stems of files whose folder says what they are."""


def step_in(found: Mapping[str, Any]) -> int | None:
    """Number of optimizer steps that a file tells; None if it does not."""
    for name in _STEPS:
        value = found.get(name)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def step_of_name(path: Path) -> int | None:
    """Number of optimizer steps that a name tells; None if it does not.

    A number after ``step`` or ``iter`` counts first, then one after ``epoch``, then the last whole
    number: ``ckpt_200.pt``, ``epoch5_acc97.pt`` (5),
    ``epoch=3-step=1200-v1.ckpt`` (1200), ``step10k.bin`` (10000). A name that tells an epoch only,
    as ``epoch=3.ckpt``, gives this number: it orders a series, but does not count steps. The
    name of the folder counts for ``model.safetensors`` and ``pytorch_model.bin``, and for folders
    of Hugging Face; a revision in its cache has the name of its branch.

    Example:
        >>> [step_of_name(Path(n)) for n in ("ckpt_200.pt", "step1000/model.bin", "last.ckpt")]
        [200, 1000, None]
    """
    if path.is_dir():
        return _number(_revision(path))
    has_ending = path.suffix and not path.suffix[1:].isdigit()
    step = _number(path.stem if has_ending else path.name)
    if step is None and path.stem in _WEIGHTS:
        return _number(_revision(path.absolute().parent))
    return step


def epochs_in(found: Mapping[str, Any]) -> int | None:
    """Number of epochs completed that a file tells; None if it does not.

    Lightning's ``epoch`` is the number of the epoch that ran, and at an epoch's end lags behind by
    one; its loops tell more.
    """
    entry = found.get(SERIES_ENTRY)
    if isinstance(entry, Mapping) and isinstance(entry.get("epochs_completed"), int):
        return int(entry["epochs_completed"])
    loops = found.get("loops")
    try:
        epochs = loops["fit_loop"]["epoch_progress"]["current"]  # type: ignore[index]
        is_last = loops["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]  # type: ignore[index]
        # Lightning counts an epoch as processed before the hooks of its end.
        runs = epochs["started"] > epochs["processed"]
        return int(epochs["processed"]) + int(runs and is_last)
    except (KeyError, TypeError):
        return None


def _number(name: str) -> int | None:
    """The steps that a text tells: after or before a word for them, else the last whole number."""
    name = re.sub(r"-v\d+$", "", name.lower())  # Lightning's, for a second file of one name
    # After an epoch there may be an accuracy.
    ways = () if _HASH.fullmatch(name) else (_COUNTED, _EPOCH, _NUMBER)
    found = next(filter(None, (way.findall(name) for way in ways)), [])
    if not found:
        return None
    number, unit = "".join(found[-1][::2]), "".join(found[-1][1::2])
    return int(number) * _UNITS[unit]


def _revision(folder: Path) -> str:
    """The name of a folder; of a snapshot in the cache of Hugging Face, the name of its branch."""
    if _HASH.fullmatch(folder.name) and folder.parent.name == "snapshots":
        refs = (ref for ref in sorted((folder.parents[1] / "refs").rglob("*")) if ref.is_file())
        names = [r.name for r in refs if r.read_text(encoding="utf-8").strip() == folder.name]
        return next((name for name in names if name != "main"), folder.name)
    return folder.name
