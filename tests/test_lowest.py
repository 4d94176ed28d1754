"""The lowest versions that pyproject.toml admits, for ``make test-oldest``."""

import pytest

from tools.lowest import lowest

METADATA = [
    "torch>=2.4",
    "jsonargparse[signatures]<5,>=4.39",
    "pytest>=8; extra == 'test'",
    "lit-credit[docs,sweep]; extra == 'test'",
    'ray>=2.10; extra == "sweep"',
    "mkdocs>=1.6; extra == 'docs'",
    "ruff>=0.6; extra == 'dev'",
]


def test_floors_become_versions_and_extras_are_followed():
    core = ["torch==2.4", "jsonargparse[signatures]==4.39"]
    assert lowest(METADATA, set()) == core
    assert lowest(METADATA, {"sweep"}) == [*core, "ray==2.10"]
    assert lowest(METADATA, {"test"}) == [*core, "pytest==8", "ray==2.10", "mkdocs==1.6"]


@pytest.mark.parametrize("line", ["torch", "torch<3", "torch>=2; python_version < '3.11'"])
def test_a_requirement_that_nobody_tried_is_an_error(line):
    with pytest.raises(ValueError, match="torch"):
        lowest([line], set())
