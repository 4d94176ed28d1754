"""The study of sums: how does a transformer of some sixty parameters add two numbers?

``layout`` says where the digits stand, ``data`` draws the sums, ``model`` is the net and
``fast_pass`` its forward pass in training, ``task`` has the loss and the metrics. ``functions`` are
pure; ``findings`` measures a net with them, ``anatomy`` does so during training, as a callback, and
``sheet`` draws it. The configurations are in ``configs/addition``, the findings in
``docs/addition.md``.
"""

from lit_credit.studies.addition.anatomy import AdderAnatomy
from lit_credit.studies.addition.data import Addition
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.functions import (
    DigitReadout,
    best_ratio,
    column_errors,
    digit_differences,
    digit_readout,
    exact_by_run,
    force_ratio,
    place_value_ratio,
    without_source,
)
from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.model import AdderParts, MicroAdder
from lit_credit.studies.addition.sheet import adder_sheet
from lit_credit.studies.addition.task import AdditionTask

__all__ = [
    "AdderAnatomy",
    "AdderFindings",
    "AdderParts",
    "Addition",
    "AdditionLayout",
    "AdditionTask",
    "DigitReadout",
    "MicroAdder",
    "adder_sheet",
    "best_ratio",
    "column_errors",
    "digit_differences",
    "digit_readout",
    "exact_by_run",
    "force_ratio",
    "place_value_ratio",
    "without_source",
]
