"""Plain nn.Modules that name their credit units, readout and residual stream."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.models.attention import AttentionWeights, CausalSelfAttention
from lit_credit.models.energy_mlp import EnergyMLP
from lit_credit.models.ensemble import Ensemble
from lit_credit.models.gpt import GPT
from lit_credit.models.lenet import LeNet
from lit_credit.models.mlp import MLP
from lit_credit.models.residual_mlp import ResidualMLP
from lit_credit.models.resnet import ResNet
from lit_credit.models.rotary import Rotary
from lit_credit.models.rotary_transformer import RotaryTransformer

__all__ = [
    "GPT",
    "MLP",
    "AttentionWeights",
    "CausalSelfAttention",
    "EnergyMLP",
    "Ensemble",
    "LeNet",
    "ResNet",
    "ResidualMLP",
    "Rotary",
    "RotaryTransformer",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
