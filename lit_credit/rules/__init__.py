"""Learning rules: one LightningModule each."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.rules.base import CreditRule
from lit_credit.rules.block_fa import BlockFA
from lit_credit.rules.bp import BP
from lit_credit.rules.dfa import DFA
from lit_credit.rules.direct_kolen_pollack import DirectKolenPollack
from lit_credit.rules.equilibrium_propagation import EquilibriumPropagation
from lit_credit.rules.fa import FA
from lit_credit.rules.fdfa import FDFA
from lit_credit.rules.forward_forward import ForwardForward
from lit_credit.rules.forward_gradient import ForwardGradient
from lit_credit.rules.frozen_units import FrozenUnits
from lit_credit.rules.inference import InferenceRule, Inferred, LearningPass
from lit_credit.rules.kolen_pollack import KolenPollack
from lit_credit.rules.local import LocalRule
from lit_credit.rules.local_losses import LocalLosses
from lit_credit.rules.pepita import PEPITA
from lit_credit.rules.predictive_coding import PredictiveCoding
from lit_credit.rules.target_propagation import TargetPropagation
from lit_credit.rules.warmup_cosine import WarmupCosine
from lit_credit.rules.weight_mirror import WeightMirror

__all__ = [
    "BP",
    "DFA",
    "FA",
    "FDFA",
    "PEPITA",
    "BlockFA",
    "CreditRule",
    "DirectKolenPollack",
    "EquilibriumPropagation",
    "ForwardForward",
    "ForwardGradient",
    "FrozenUnits",
    "InferenceRule",
    "Inferred",
    "KolenPollack",
    "LearningPass",
    "LocalLosses",
    "LocalRule",
    "PredictiveCoding",
    "TargetPropagation",
    "WarmupCosine",
    "WeightMirror",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
