"""The study of sums: a small transformer that adds, its data, its task and its anatomy."""

from lit_credit.studies.addition.anatomy import AdderAnatomy
from lit_credit.studies.addition.data import Addition
from lit_credit.studies.addition.digit_readout import DigitReadout, digit_readout
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.model import MicroAdder
from lit_credit.studies.addition.place_value import (
    best_ratio,
    force_ratio,
    place_value_ratio,
    without_source,
)
from lit_credit.studies.addition.sheet import adder_sheet
from lit_credit.studies.addition.sum_errors import column_errors, digit_differences, exact_by_run
from lit_credit.studies.addition.task import AdditionTask

__all__ = [
    "AdderAnatomy",
    "AdderFindings",
    "Addition",
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
