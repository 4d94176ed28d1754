"""The study of copying: does a net copy a pattern that it has never seen?

``data`` writes each pattern twice into random symbols, ``task`` takes the error on the second copy.
The net, :class:`lit_credit.models.RotaryTransformer`, and the diagnostics are of general use. The
configurations are in ``configs/copying``, the findings in ``docs/copying_circuits.md``.
"""

from lit_credit.studies.copying.data import Copying
from lit_credit.studies.copying.task import CopyError, CopyTarget, PatternCopying

__all__ = [
    "CopyError",
    "CopyTarget",
    "Copying",
    "PatternCopying",
]
