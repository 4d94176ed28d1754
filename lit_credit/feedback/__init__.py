"""Feedback: everything that owns a B."""

from lit_credit.feedback.convert import add_feedback
from lit_credit.feedback.draw import Distribution, derive_seed, draw_feedback
from lit_credit.feedback.layers import FeedbackLayer, Sign
from lit_credit.feedback.matrices import FeedbackPair, feedback_layers, redraw_feedback

__all__ = [
    "Distribution",
    "FeedbackLayer",
    "FeedbackPair",
    "Sign",
    "add_feedback",
    "derive_seed",
    "draw_feedback",
    "feedback_layers",
    "redraw_feedback",
]
