"""Several processes: each look is rank zero's alone, and all stay in step, or it is refused.

The strategy `ddp` itself is in tests/rules/test_ddp.py, whose two processes serve both.
"""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lit_credit.callbacks import ResidualNorms, TextSamples, WeightAlignment
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from tests import support
from tests.support.processes import run_module
from tests.support.watched import UNITS

STRATEGIES = ["ddp_notebook", "ddp_spawn"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("processes")
    run_module("tests.foreign.spawn_worker", found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_processes_stay_in_step_and_train_what_they_would_have(strategy, folder):
    names = ["bare/rank0", *(f"{strategy}/{name}" for name in ("rank0", "rank1", "parent"))]
    one, *others = (torch.load(folder / f"{name}.pt", weights_only=True) for name in names)
    for other in others:
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_histories_are_written_once(strategy, folder):
    for name in ("residual_norms", "gradient_norms", "credit_alignment"):
        rows = read_history(folder / strategy / f"{name}.jsonl")
        assert [(row["step"], row["epoch"]) for row in rows] == [(0, 0), (4, 1), (8, 2)]
    # The process that started the others has the weights, and none of the rows.
    assert (folder / strategy / "rows").read_text() == "[0, 0, 0]"


@pytest.mark.parametrize("kind", [FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy])
def test_shards_are_refused(kind, tmp_path):
    # Such a strategy needs GPUs to be set up; that it stands in the Trainer is what is looked at.
    run = support.trainer(tmp_path, logger=False)
    run._accelerator_connector.strategy = object.__new__(kind)
    words = rf"under {kind.__name__} each process has a shard(.|\n)*ddp"
    for callback in (ResidualNorms(units=UNITS), WeightAlignment(), TextSamples()):
        with pytest.raises(MisconfigurationException, match=f"{type(callback).__name__} .*{words}"):
            callback.setup(run, support.Foreign(), "fit")
    for rule in (BP, DFA):
        module = support.rule(rule)
        module.trainer = run
        with pytest.raises(MisconfigurationException, match=f"{rule.__name__} .*{words}"):
            module.configure_callbacks()
