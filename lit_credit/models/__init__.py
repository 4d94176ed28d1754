"""Plain nn.Modules that name their credit units, readout and residual stream."""

from lit_credit.models.attention import AttentionWeights, CausalSelfAttention
from lit_credit.models.attention_only import AttentionOnly
from lit_credit.models.context_mlp import ContextMLP
from lit_credit.models.ensemble import Ensemble
from lit_credit.models.gpt import GPT
from lit_credit.models.low_rank import LowRank
from lit_credit.models.micro_adder import MicroAdder
from lit_credit.models.mlp import MLP
from lit_credit.models.parallel_attention import ParallelAttention, SeparateHeads
from lit_credit.models.residual_mlp import ResidualMLP
from lit_credit.models.rotary import Rotary
from lit_credit.models.rotary_transformer import RotaryTransformer

__all__ = [
    "GPT",
    "MLP",
    "AttentionOnly",
    "AttentionWeights",
    "CausalSelfAttention",
    "ContextMLP",
    "Ensemble",
    "LowRank",
    "MicroAdder",
    "ParallelAttention",
    "ResidualMLP",
    "Rotary",
    "RotaryTransformer",
    "SeparateHeads",
]
