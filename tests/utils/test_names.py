"""Submodules by name or pattern."""

import pytest
from torch import nn

from lit_credit.utils.names import match_names, matched_units, submodule_names

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


DEEP = [
    "model",
    "model.embed",
    *(
        f"model.encoder.layer.{i}{end}"
        for i in range(2)
        for end in ("", ".attn", ".attn.out", ".mlp")
    ),
    "model.pooler",
]
TWO = [f"{side}.layer.{i}" for side in ("encoder", "decoder") for i in range(2)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer.*", ["model.encoder.layer.0", "model.encoder.layer.1"]),
        ("layer.1.attn", ["model.encoder.layer.1.attn"]),
        ("pooler", ["model.pooler"]),
        ("emb*", ["model.embed"]),
        ("model.*", ["model.embed", "model.pooler"]),  # as it is
        ("*attn", ["model.encoder.layer.0.attn", "model.encoder.layer.1.attn"]),
        ("*.mlp", ["model.encoder.layer.0.mlp", "model.encoder.layer.1.mlp"]),
        ("model*attn*", ["model.encoder.layer.0.attn", "model.encoder.layer.1.attn"]),
        ("model.encoder*layer*", ["model.encoder.layer.0", "model.encoder.layer.1"]),
    ],
)
def test_a_pattern_may_leave_out_its_beginning_or_cross_dots(pattern, expected):
    assert match_names([pattern], DEEP, "units") == expected
    assert matched_units([pattern], [f"net.{name}" for name in DEEP]) == [
        f"net.{name}" for name in expected
    ]


def test_a_beginning_that_is_not_unique_is_named_with_remedies_that_match():
    with pytest.raises(ValueError, match=r"'layer\.\*' .* in 2 ways: encoder.*decoder") as error:
        match_names(["layer.*"], TWO, "units")
    for remedy in ("encoder.layer.*", "decoder.layer.*", "*.layer.*"):
        assert remedy in str(error.value)
        assert set(match_names([remedy], TWO, "units")) <= set(TWO)
    assert match_names(["*.layer.*"], TWO, "units") == TWO
    with pytest.raises(ValueError, match="matches nothing"):
        match_names(["layers.*"], TWO, "units")


def test_patterns_of_a_net_may_leave_out_more_than_net():
    names = ["net", "net.model", "net.model.fc1", "net.model.fc2", "task", "val_metrics"]
    assert matched_units(["fc*"], names) == ["net.model.fc1", "net.model.fc2"]
    assert matched_units(["net.model.fc1", "fc2"], names) == ["net.model.fc1", "net.model.fc2"]
