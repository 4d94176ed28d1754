"""The study of n-grams that are memorized: distributions, nets, task and theory."""

from lit_credit.studies.ngram.attention_only import AttentionOnly
from lit_credit.studies.ngram.conditionals import conditional_entropy, max_accuracy, random_baseline
from lit_credit.studies.ngram.context_mlp import ContextMLP
from lit_credit.studies.ngram.data import NGram
from lit_credit.studies.ngram.distributions import (
    AlmostRankD,
    LastPosition,
    NGramDistribution,
    PowerUnif,
    RankD,
)
from lit_credit.studies.ngram.log_prob_theory import LogProbTheory
from lit_credit.studies.ngram.low_rank import LowRank
from lit_credit.studies.ngram.min_norm_coordinates import min_norm_coordinates
from lit_credit.studies.ngram.optimal_contexts import optimal_contexts
from lit_credit.studies.ngram.parallel_attention import ParallelAttention, SeparateHeads
from lit_credit.studies.ngram.task import (
    ContextDivergence,
    ExpectedAccuracy,
    Margin,
    MemorizedContexts,
    NGramPrediction,
    NGramTarget,
)
from lit_credit.studies.ngram.theory_figure import theory_figure

__all__ = [
    "AlmostRankD",
    "AttentionOnly",
    "ContextDivergence",
    "ContextMLP",
    "ExpectedAccuracy",
    "LastPosition",
    "LogProbTheory",
    "LowRank",
    "Margin",
    "MemorizedContexts",
    "NGram",
    "NGramDistribution",
    "NGramPrediction",
    "NGramTarget",
    "ParallelAttention",
    "PowerUnif",
    "RankD",
    "SeparateHeads",
    "conditional_entropy",
    "max_accuracy",
    "min_norm_coordinates",
    "optimal_contexts",
    "random_baseline",
    "theory_figure",
]
