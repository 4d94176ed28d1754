"""What a batch means: inputs, loss, metrics."""

from lit_credit.tasks.addition import AdditionTask
from lit_credit.tasks.base import Task
from lit_credit.tasks.classification import Classification
from lit_credit.tasks.each_member import EachMember, MemberMetric
from lit_credit.tasks.next_token import BitsPerCharacter, NextToken, Perplexity
from lit_credit.tasks.ngram_prediction import (
    ContextDivergence,
    ExpectedAccuracy,
    Margin,
    MemorizedContexts,
    NGramPrediction,
    NGramTarget,
)
from lit_credit.tasks.pattern_copying import CopyError, CopyTarget, PatternCopying

__all__ = [
    "AdditionTask",
    "BitsPerCharacter",
    "Classification",
    "ContextDivergence",
    "CopyError",
    "CopyTarget",
    "EachMember",
    "ExpectedAccuracy",
    "Margin",
    "MemberMetric",
    "MemorizedContexts",
    "NGramPrediction",
    "NGramTarget",
    "NextToken",
    "PatternCopying",
    "Perplexity",
    "Task",
]
