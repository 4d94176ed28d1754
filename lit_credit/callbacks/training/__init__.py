"""Callbacks that change or record training: guard, freezing, stages, checkpoints, metrics, text."""

from lit_credit.callbacks.training.finite_guard import FiniteGuard
from lit_credit.callbacks.training.member_checkpoints import MemberCheckpoints
from lit_credit.callbacks.training.metric_history import MetricHistory
from lit_credit.callbacks.training.part_freezing import PartFreezing
from lit_credit.callbacks.training.spaced_checkpoints import SpacedCheckpoints
from lit_credit.callbacks.training.staged_training import StagedTraining
from lit_credit.callbacks.training.text_samples import TextSamples

__all__ = [
    "FiniteGuard",
    "MemberCheckpoints",
    "MetricHistory",
    "PartFreezing",
    "SpacedCheckpoints",
    "StagedTraining",
    "TextSamples",
]
