"""How many rows a probe has by default, where a net is large."""

import math

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_credit.inspect.probe.probe import Probe
from lit_credit.utils.nested import tensors_of

__all__ = ["affordable"]

_STEPS = 8
"""Training steps that a measurement of a large net may take."""
_SMALL = 1e12
"""Parameters times positions of a measurement of which no account is taken: some seconds."""
_NUMBERS = 256
"""Of a tensor that is not of whole numbers, about those of one position: a patch of 16 x 16."""


def affordable(
    who: str, module: LightningModule, probe: Probe, steps: float, batch_size: int | None
) -> Probe:
    """The probe, or of a large net its first chunks, so that a measurement stays short.

    A net is large where its parameters, times the positions of all rows, are more than 10^12:
    GPT-2 on 31 rows of 256 symbols. Its probe is as many chunks as take about 8 training steps, or
    as are not more than that, at least one. One line says so.

    Args:
        who: the diagnostic.
        module: the module.
        probe: the rows that others have by default.
        steps: training steps that as many rows as a training batch has take.
        batch_size: the rows of a training batch; None takes those of a chunk.
    """
    parameters = sum(parameter.numel() for parameter in module.parameters())
    positions = sum(map(_positions, tensors_of(probe.chunks[0]))) / max(1, probe.rows[0])
    chunk = max(1, probe.rows[0])
    short = _STEPS / steps * (batch_size or chunk)
    small = _SMALL / steps / max(1.0, parameters * positions)
    count = max(1, int(max(short, small) // chunk))
    if count >= len(probe.chunks):
        return probe
    chosen = probe.some(count)
    time = math.ceil(chosen.n_rows / (batch_size or chunk) * steps)
    rank_zero_info(
        f"{who} takes {chosen.n_rows} of {probe.n_rows} rows as its probe, about {time} training "
        f"steps a measurement, since a net of {parameters / 1e6:.0f} million "
        "parameters is slow. Set `n_samples` for another number."
    )
    return chosen


def _positions(x: Tensor) -> float:
    """Symbols, or patches, of a tensor; a target of one number a row is none."""
    if x.dim() < 2:
        return 0.0
    return float(x.numel()) / (_NUMBERS if x.is_floating_point() or x.is_complex() else 1)
