"""Ranks of spectra: singular values in, one number out."""

import torch
from torch import Tensor


def scaled(s: Tensor) -> Tensor:
    """Singular values (..., r) over their largest, so that powers neither overflow nor vanish."""
    return s / s.amax(-1, keepdim=True)


def participation(s: Tensor) -> Tensor:
    """(sum s^2)^2 / sum s^4, (...); NaN without a singular value above zero."""
    if s.shape[-1] == 0:
        return s.new_full(s.shape[:-1], torch.nan)
    squares = scaled(s).square()
    ratio: Tensor = squares.sum(-1).square() / squares.square().sum(-1)
    return ratio


def entropic(s: Tensor) -> Tensor:
    """Exp of the entropy of s / sum s, (...); NaN without a singular value above zero."""
    if s.shape[-1] == 0:
        return s.new_full(s.shape[:-1], torch.nan)
    shares = scaled(s)
    shares = shares / shares.sum(-1, keepdim=True)
    rank: Tensor = torch.special.entr(shares).sum(-1).exp()
    return rank


def stable(s: Tensor) -> Tensor:
    """Sum s^2 / max s^2, (...); NaN without a singular value above zero."""
    if s.shape[-1] == 0:
        return s.new_full(s.shape[:-1], torch.nan)
    rank: Tensor = scaled(s).square().sum(-1)
    return rank
