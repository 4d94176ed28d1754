"""The study of sequences in which a pattern is copied: data and task."""

from lit_credit.studies.copying.data import Copying
from lit_credit.studies.copying.task import CopyError, CopyTarget, PatternCopying

__all__ = [
    "CopyError",
    "CopyTarget",
    "Copying",
    "PatternCopying",
]
