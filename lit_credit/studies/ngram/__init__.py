"""The study of memorized n-grams: what must a net hold to know what follows each context?

``distributions`` and ``data`` draw the n-grams; ``model`` is the transformer of attention alone and
``baselines`` are the nets beside it; ``task`` has the losses and metrics. ``functions`` are pure:
what can be known, and the best logits of low rank; ``theory`` draws a net against them, as a
callback. The configurations are in ``configs/ngram_memorization``, the findings in
``docs/ngram_memorization.md``.
"""

from lit_credit.studies.ngram.baselines import ContextMLP, LowRank
from lit_credit.studies.ngram.data import NGram
from lit_credit.studies.ngram.distributions import (
    AlmostRankD,
    LastPosition,
    NGramDistribution,
    PowerUnif,
    RankD,
)
from lit_credit.studies.ngram.functions import (
    conditional_entropy,
    log_ratio_fluctuation,
    low_rank_log_probs,
    max_accuracy,
    min_norm_coordinates,
    optimal_contexts,
    random_baseline,
    second_order_contexts,
)
from lit_credit.studies.ngram.model import AttentionOnly, ParallelAttention, SeparateHeads
from lit_credit.studies.ngram.task import (
    ContextDivergence,
    ExpectedAccuracy,
    Margin,
    MemorizedContexts,
    NGramPrediction,
    NGramTarget,
)
from lit_credit.studies.ngram.theory import LogProbTheory, theory_figure

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
    "log_ratio_fluctuation",
    "low_rank_log_probs",
    "max_accuracy",
    "min_norm_coordinates",
    "optimal_contexts",
    "random_baseline",
    "second_order_contexts",
    "theory_figure",
]
