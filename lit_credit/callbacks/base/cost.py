"""The default number of probe rows for a large net."""

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
"""Parameters times positions up to which a measurement is not shortened: some seconds."""
_NUMBERS = 256
"""Numbers per position of a floating-point tensor, about a patch of 16 x 16."""


def affordable(
    who: str, module: LightningModule, probe: Probe, steps: float, batch_size: int | None
) -> Probe:
    """The probe, or for a large net only its first chunks, so that a measurement stays short.

    A net is large if its parameters times the positions of all rows exceed 10^12: GPT-2 on 31 rows
    of 256 symbols. Its probe is cut to the chunks that stay below that number or take about 8
    training steps, whichever is more, and has at least one chunk. One line says so.

    Args:
        who: name of the diagnostic.
        module: the module.
        probe: the default probe.
        steps: training steps that a measurement of as many rows as a training batch has takes.
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
    """The number of symbols or patches in a tensor; 0 for a target of one number per row."""
    if x.dim() < 2:
        return 0.0
    return float(x.numel()) / (_NUMBERS if x.is_floating_point() or x.is_complex() else 1)
