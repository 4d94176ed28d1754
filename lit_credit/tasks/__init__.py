"""Tasks: the inputs, loss and metrics of a batch."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.tasks.base import Task
from lit_credit.tasks.classification import Classification
from lit_credit.tasks.each_member import EachMember, MemberMetric
from lit_credit.tasks.next_token import BitsPerCharacter, NextToken, Perplexity
from lit_credit.tasks.supervised import Supervised

__all__ = [
    "BitsPerCharacter",
    "Classification",
    "EachMember",
    "MemberMetric",
    "NextToken",
    "Perplexity",
    "Supervised",
    "Task",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
