"""Measuring on any module: capture, probes, losses, state, attention."""

from typing import TYPE_CHECKING

from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.exact_backward import exact_backward
from lit_credit.inspect.state.guard import guarded
from lit_credit.inspect.unit_names import expand_units
from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.inspect.probe.probe import Probe, take_probe

__all__ = [
    "Point",
    "Probe",
    "capture",
    "exact_backward",
    "expand_units",
    "guarded",
    "take_probe",
]

if not TYPE_CHECKING:
    # A probe loads Lightning; feedback and nets need none of it.
    __getattr__, __dir__ = late_names(__name__, {"probe.probe": "Probe take_probe"})
