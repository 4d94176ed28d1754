"""Base classes for authors of diagnostics: schedule, probe, chunk, points, report."""

from typing import TYPE_CHECKING

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.last_step import LastStepDiagnostic
from lit_credit.callbacks.base.points import layer_tag, stream_points, unit_names
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.stream import StreamDiagnostic
from lit_credit.former_names import former_names
from lit_credit.inspect.capture import Point

__all__ = [
    "Chunk",
    "ContextDiagnostic",
    "Diagnostic",
    "LastStepDiagnostic",
    "Point",
    "ProbeDiagnostic",
    "StreamDiagnostic",
    "layer_tag",
    "stream_points",
    "unit_names",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
