"""One quantity of many samples as three numbers."""

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["OverSamples", "over_samples"]


class OverSamples(NamedTuple):
    """Mean, sample standard deviation and minimum over the samples where there is a value."""

    mean: float
    sd: float
    min: float


def over_samples(values: Tensor) -> OverSamples:
    """Mean, spread and minimum of (N,) values over the samples whose value is not NaN.

    A cosine is undefined where a gradient vanishes; one such sample does not take the others'
    answer. All three are NaN where no sample is defined, and the deviation of one sample is NaN.

    Args:
        values: (N,), NaN where undefined.

    Example:
        >>> import torch
        >>> over_samples(torch.tensor([0.5, float("nan"), 1.0])).mean
        0.75
    """
    defined = values[~values.isnan()].double()
    if not len(defined):
        return OverSamples(math.nan, math.nan, math.nan)
    sd = float(defined.std(correction=1)) if len(defined) > 1 else math.nan
    return OverSamples(float(defined.mean()), sd, float(defined.min()))
