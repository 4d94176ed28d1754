"""What a batch means: inputs, loss, metrics."""

from lit_credit.tasks.base import Task
from lit_credit.tasks.classification import Classification

__all__ = ["Classification", "Task"]
