"""What a batch means: inputs, loss, metrics."""

from lit_credit.tasks.base import Task
from lit_credit.tasks.classification import Classification
from lit_credit.tasks.next_token import BitsPerCharacter, NextToken, Perplexity
from lit_credit.tasks.pattern_copying import CopyError, CopyTarget, PatternCopying

__all__ = [
    "BitsPerCharacter",
    "Classification",
    "CopyError",
    "CopyTarget",
    "NextToken",
    "PatternCopying",
    "Perplexity",
    "Task",
]
