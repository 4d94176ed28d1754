"""Names of units that are several submodules, or that end at an input."""

import pytest

from lit_credit.inspect.unit_names import expand_units, parse_unit, with_prefix

NAMES = ["stem", "stem.conv", "stem.norm", "layers", "layers.0", "layers.0.a", "layers.0.b"]
NAMES += ["layers.1", "layers.1.a", "layers.1.b", "act", "head"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["layers.*"], ["layers.0", "layers.1"]),
        (["layers.*.a + layers.*.b"], ["layers.0.a+layers.0.b", "layers.1.a+layers.1.b"]),
        (["stem->", "layers.*->"], ["stem->layers.0", "layers.0->layers.1", "layers.1->head"]),
        (
            ["layers.*.a+act->layers.*.b"],
            ["layers.0.a+act->layers.0.b", "layers.1.a+act->layers.1.b"],
        ),
        (["stem.conv+stem.norm->", "layers"], ["stem.conv+stem.norm->layers", "layers"]),
        (["layers.?+act"], ["layers.0+act", "layers.1+act"]),
    ],
    ids=str,
)
def test_joined_patterns_are_paired_in_order(patterns, expected):
    assert expand_units(patterns, NAMES, "units", "head") == expected
    assert expand_units(expected, NAMES, "units", "head") == expected
    assert [str(parse_unit(name)) for name in expected] == expected


def test_a_unit_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"'layers\.0\+act' is matched twice"):
        expand_units(["layers.*+act", "layers.0+act"], NAMES, "units")


def test_a_prefix_goes_before_every_part():
    assert with_prefix("a.b+c->d", "net.") == "net.a.b+net.c->net.d"
