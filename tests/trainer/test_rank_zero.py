"""Processes that wait for rank zero."""

import json

import pytest
import torch

from lit_credit.trainer.rank_zero import waiting_for_rank_zero
from tests import support
from tests.support.processes import run_module


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    done = run_module("tests.trainer.rank_zero_worker", folder)
    return folder, done.stdout + done.stderr


@pytest.mark.slow
def test_a_measurement_longer_than_the_timeout_of_the_processes_ends_no_run(found):
    folder, printed = found
    one, other = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert printed.count("Slow has worked on rank zero for 1 s; the other ranks wait.") == 1


@pytest.mark.slow
def test_all_processes_see_the_watched_number_and_stop_alike(found):
    known = [json.loads((found[0] / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    # 0 before training, 1 after the first epoch, 2 after the second.
    assert known[0] == known[1] == {"epoch": 2, "step": 8, "count": 2.0}
    assert [path.name for path in found[0].glob("*.ckpt")] == ["epoch=1.ckpt"]


@pytest.mark.slow
def test_all_processes_are_told_why_it_failed(found):
    assert (found[0] / "error0").read_text() == "Failing: this one fails"
    assert "Failing failed on rank zero" in (found[0] / "error1").read_text()
    assert "ValueError: Failing: this one fails" in (found[0] / "error1").read_text()


def test_one_process_keeps_what_it_finds(tmp_path):
    with waiting_for_rank_zero(support.trainer(tmp_path), "nobody") as found:
        found["a"] = 1
    assert found == {"a": 1}
