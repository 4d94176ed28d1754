"""Comparing a rule's credit with the true gradient: norms, cosines, alignment."""

from lit_credit.callbacks.credit.credit_alignment import CreditAlignment
from lit_credit.callbacks.credit.credit_function import CreditFunction
from lit_credit.callbacks.credit.gradient_noise import GradientNoise
from lit_credit.callbacks.credit.gradient_norms import GradientNorms
from lit_credit.callbacks.credit.parameter_bars import parameter_bars
from lit_credit.callbacks.credit.reference_validity import ReferenceValidity
from lit_credit.callbacks.credit.scale_stability import ScaleStability
from lit_credit.callbacks.credit.sharpness import Sharpness
from lit_credit.callbacks.credit.weight_alignment import WeightAlignment

__all__ = [
    "CreditAlignment",
    "CreditFunction",
    "GradientNoise",
    "GradientNorms",
    "ReferenceValidity",
    "ScaleStability",
    "Sharpness",
    "WeightAlignment",
    "parameter_bars",
]
