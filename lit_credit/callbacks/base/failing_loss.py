"""Explaining the error of a loss, or of a forward pass, that does not run on the probe."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.inspect.batch_loss import loss_source
from lit_credit.inspect.probe.probe import take_probe
from lit_credit.inspect.state.guard import guarded
from lit_credit.utils.nested import described
from lit_credit.utils.short_text import shortened

__all__ = ["explained"]

_REMEDIES = {
    "probe": '`probe="train"` where validation batches are of another form than training batches',
    "mode": '`mode="train"` where the net has this loss in train mode only',
    "loss": "`loss`, a function of (module, batch) that returns a scalar, for a loss of your own",
}

_ROWS = 8
"""Least rows of training data to try: a batch norm takes variances over rows."""


def explained(
    who: str, chunk: Chunk, run: Callable[[Chunk], object], *, mode: str, source: str
) -> Exception | None:
    """The error for a diagnostic whose first measurement failed because its loss fails.

    The loss runs once more by itself. If it fails, it is tried in train mode and on training data,
    so that the error can say what works. The module is left unchanged.

    Args:
        who: name of the diagnostic.
        chunk: the first chunk of its probe.
        run: what the diagnostic runs: ``Chunk.loss``, or ``Chunk.forward`` if it needs no loss.
        mode: mode of the module in the measurement.
        source: source of the probe.

    Returns:
        An error that names the diagnostic, the batch and the remedies, caused by the error of the
        loss; None if the loss runs, or if there is not enough memory for it.
    """
    reason = _failure(chunk, run, mode)
    if reason is None or isinstance(reason, torch.cuda.OutOfMemoryError | MemoryError):
        return None
    used = {"mode": mode, "probe": source}
    remedies = [text for name, text in _REMEDIES.items() if used.get(name) != "train"]
    working = _working(chunk, run, mode, source)
    found = f"{type(reason).__name__}: {shortened(str(reason).strip(), 400).rstrip('.')}"
    error = MisconfigurationException(
        f"{who} runs {loss_source(chunk.module, chunk.given)} in {mode} mode on {source} data, "
        f"where it fails. {found}. The batch: {described(chunk.batch)}. Give {who} "
        f"{'; '.join(remedies)}. {f'It runs with {working}.' if working else ''}".strip()
    )
    error.__cause__ = reason
    return error


def _working(chunk: Chunk, run: Callable[[Chunk], object], mode: str, source: str) -> str | None:
    """Arguments with which the loss runs; None if there are none."""
    train = chunk if source == "train" else _training_chunk(chunk)
    tries: dict[str, tuple[Any, str]] = {
        '`mode="train"`': (chunk, "train"),
        '`probe="train"`': (train, mode),
        '`probe="train"` and `mode="train"`': (train, "train"),
    }
    return next(
        (
            text
            for text, (other, its_mode) in tries.items()
            if other is not None and _failure(other, run, its_mode) is None
        ),
        None,
    )


def _training_chunk(chunk: Chunk) -> Chunk | None:
    module = chunk.module
    try:
        with guarded(module, module.trainer, train=True):
            probe = take_probe(module.trainer, module, max(chunk.rows, _ROWS), source="train")
    except Exception:  # for example a stream, from which no rows may be taken
        return None
    return chunk.on(probe.chunks[0])


def _failure(chunk: Chunk, run: Callable[[Chunk], object], mode: str) -> Exception | None:
    try:
        with guarded(chunk.module, chunk.module.trainer, train=mode == "train"):
            run(chunk)
    except Exception as error:  # of any kind: the loss may be the user's code
        return error
    return None
