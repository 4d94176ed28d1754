"""Diagnostics of nets that are trained already: see docs/checkpoints.md."""

from lit_credit.diagnosis.diagnose import diagnose
from lit_credit.diagnosis.result import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
