"""Configurations that earlier versions wrote."""

import pytest
import yaml
from jsonargparse import capture_parser

from lit_credit.cli import run
from lit_credit.cli.arguments import ArgumentsError
from tests.cli.parsed import with_value

KINDS = ["WeightAlignment", "CircuitMatching", "ExactDivergence", "ResidualNorms"]


def parsed(kind, **given):
    """The one callback of a ``config.yaml`` in which every diagnostic had the same arguments."""
    empty = {"every_n_epochs": 2, "n_samples": None, "units": None, "figure": True, "loss": None}
    entry = {"class_path": f"lit_credit.callbacks.{kind}", "init_args": empty | given}
    text = yaml.safe_dump(with_value("trainer.callbacks", [entry]))
    parser = capture_parser(lambda: run(["fit"]))
    return parser.parse_args(["fit", f"--config={text}"]).fit.trainer.callbacks[0].init_args


@pytest.mark.parametrize("kind", KINDS)
def test_empty_arguments_that_a_diagnostic_no_longer_has_are_left_out(kind):
    assert parsed(kind).every_n_epochs == 2


def test_a_value_for_one_of_them_is_refused():
    with pytest.raises(ArgumentsError, match="'n_samples' is not accepted"):
        parsed("WeightAlignment", n_samples=7)
