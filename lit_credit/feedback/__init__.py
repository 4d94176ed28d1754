"""Feedback matrices B for any nn.Module, usable without the rules."""

from typing import TYPE_CHECKING

from lit_credit.feedback.attached import attached
from lit_credit.feedback.block_feedback import BlockFeedback
from lit_credit.feedback.broadcast import Broadcast
from lit_credit.feedback.convert import add_feedback
from lit_credit.feedback.credits import Credits, rms_normalized
from lit_credit.feedback.direct_feedback import DirectFeedback, ErrorShape
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.input_feedback import InputFeedback
from lit_credit.feedback.inverses import Inverses
from lit_credit.feedback.layers import FeedbackLayer, Sign
from lit_credit.feedback.learned import feedback_parameters, learn_feedback
from lit_credit.feedback.matrices import FeedbackPair, feedback_layers, redraw_feedback
from lit_credit.feedback.units import local_units
from lit_credit.former_names import former_names
from lit_credit.inspect.exact_backward import exact_backward

__all__ = [
    "BlockFeedback",
    "Broadcast",
    "Credits",
    "DirectFeedback",
    "Distribution",
    "ErrorShape",
    "FeedbackLayer",
    "FeedbackPair",
    "InputFeedback",
    "Inverses",
    "Sign",
    "add_feedback",
    "attached",
    "derive_seed",
    "draw_feedback",
    "exact_backward",
    "feedback_layers",
    "feedback_parameters",
    "learn_feedback",
    "local_units",
    "redraw_feedback",
    "rms_normalized",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
