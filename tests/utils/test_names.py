"""Submodules by name or pattern."""

import pytest
from torch import nn

from lit_credit.utils.names import match_names, submodule_names

NAMES = ["stem", "blocks.0", "blocks.0.norm", "blocks.1", "blocks.1.norm", "blocks.10", "head"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["head", "stem"], ["head", "stem"]),
        (["blocks.*"], ["blocks.0", "blocks.1", "blocks.10"]),
        (["blocks.?"], ["blocks.0", "blocks.1"]),
        (["blocks.[1-9]*"], ["blocks.1", "blocks.10"]),
        (["*.*.norm"], ["blocks.0.norm", "blocks.1.norm"]),
        (["*"], ["stem", "head"]),
        ([], []),
    ],
    ids=str,
)
def test_patterns_keep_their_order_and_do_not_cross_dots(patterns, expected):
    assert match_names(patterns, iter(NAMES), "units") == expected


def test_errors_name_argument_pattern_and_choice():
    with pytest.raises(ValueError, match=r"`units`: 'block\.\*' matches nothing.*blocks\.10, head"):
        match_names(["stem", "block.*"], NAMES, "units")
    with pytest.raises(ValueError, match=r"`readout`: 'blocks\.1' is matched twice.*'blocks\.1'"):
        match_names(["blocks.*", "blocks.1"], NAMES, "readout")
    with pytest.raises(ValueError, match="Choose from: none"):
        match_names(["a"], [], "units")


def test_submodules_in_the_order_of_registration():
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert submodule_names(net) == ["0", "1", "1.0"]
