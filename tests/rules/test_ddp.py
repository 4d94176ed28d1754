"""Two processes train what one trains with the whole batch."""

import pytest
import torch

from lit_credit.runs.history import read_history
from tests.rules.ddp_worker import RULES, train_all
from tests.support.processes import run_module


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    train_all(1, one)
    run_module("tests.rules.ddp_worker", 2, two)
    return one, two


@pytest.mark.parametrize("kind", RULES)
def test_two_processes_equal_one(kind, folders):
    one, two = (torch.load(folder / f"{kind}.pt", weights_only=True) for folder in folders)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("kind", RULES)
def test_only_one_process_measures(kind, folders):
    rows = read_history(folders[1] / kind / "residual_norms.jsonl")
    assert [row["step"] for row in rows] == [0, 8, 16]


def test_a_foreign_module_is_measured_by_one_process_and_both_stay_in_step(folders):
    names = [f"foreign/{watch}/rank{rank}.pt" for watch in (False, True) for rank in (0, 1)]
    first, *others = (torch.load(folders[1] / name, weights_only=True) for name in names)
    for other in others:
        assert all(torch.equal(first[key], other[key]) for key in first)
    rows = read_history(folders[1] / "foreign" / "True" / "gradient_norms.jsonl")
    assert [row["step"] for row in rows] == [0, 4, 8]
