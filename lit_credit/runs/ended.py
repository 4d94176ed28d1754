"""Whether a run ended where its configuration says, by the rows of its histories."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_credit.runs.columns import Columns, Integers
from lit_credit.runs.history import Row

__all__ = ["following", "last_place", "may_stop", "stops_short", "was_tested"]

_TEST = "test"
"""Stem of the history of what was measured on test data when training had ended."""
_STOPPING = {"EarlyStopping", "Timer"}
_LIGHTNING = {"lightning", "pytorch_lightning"}

_Histories = Mapping[str, Sequence[Row]]


def may_stop(path: str) -> bool:
    """Whether a callback of Lightning, by its import path, may end training at any time.

    Example:
        >>> may_stop("lightning.pytorch.callbacks.EarlyStopping"), may_stop("mine.EarlyStopping")
        (True, False)
    """
    return path.partition(".")[0] in _LIGHTNING and path.rpartition(".")[2] in _STOPPING


def was_tested(histories: _Histories) -> bool:
    """Whether a run was tested after its last step, as ``lit-credit fit`` does at its end."""
    tested = histories.get(_TEST)
    return bool(tested) and last_place(histories, "step") == _last(tested or (), "step")


def stops_short(histories: _Histories, trainer: Mapping[str, Any]) -> bool:
    """Whether another row would have come before the configured number of epochs or steps.

    Args:
        histories: rows by the stem of their file.
        trainer: the configuration of the Trainer, with a number at ``max_epochs`` or ``max_steps``.
    """
    epochs, steps = (
        -1 if (n := trainer.get(k)) is None else n for k in ("max_epochs", "max_steps")
    )
    if 0 <= steps < following(histories, "step"):
        return False
    if epochs < 0:  # steps alone end the run
        return True
    every = trainer.get("check_val_every_n_epoch", 1)
    is_whole = trainer.get("val_check_interval") in (None, 1)  # 1.0 is once an epoch
    if type(every) is int and every > 0:
        last = last_place(histories, "epoch")
        coming = (last // every + 1) * every
    else:
        coming, is_whole = following(histories, "epoch"), False
    # Validations within epochs need not fall on the end of the last one.
    return coming + (not is_whole) <= epochs


def last_place(histories: _Histories, key: str) -> int:
    """The last ``step`` or ``epoch`` at which anything was measured."""
    return max(_last(rows, key) for rows in histories.values())


def _last(rows: Sequence[Row], key: str) -> int:
    return int(_column(rows, key)[-1]) if isinstance(rows, Columns) else max(_places(rows, key))


def following(histories: _Histories, key: str) -> int:
    """The step or epoch of the next row, if the distance of the last two goes on."""
    known = sorted({place for rows in histories.values() for place in _places(rows, key)})
    return known[-1] + (known[-1] - known[-2] if len(known) > 1 else 1)


def _places(rows: Sequence[Row], key: str) -> list[int]:
    found = _column(rows, key) if isinstance(rows, Columns) else [row[key] for row in rows]
    return [int(place) for place in found]


def _column(rows: Columns, key: str) -> Integers:
    return rows.step if key == "step" else rows.epoch
