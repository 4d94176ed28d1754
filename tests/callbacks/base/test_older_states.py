"""A checkpoint of an older version, which names arguments otherwise, keeps its rows."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lit_credit.callbacks import ScaleStability
from lit_credit.callbacks.base.older_states import rename_older_state
from lit_credit.datamodules import Digits
from lit_credit.models import ResidualMLP
from lit_credit.rules import DFA
from lit_credit.tasks import Classification

NOW = "Norms{'every': 1, 'limit': nan, 'units': ['a', 'b'], 'sibling': 0}"


@pytest.mark.parametrize(
    "older",
    [
        "Norms{'every': 1, 'units': ['a', 'b'], 'limit': nan, 'sibling': 0}",
        "Norms{'every': 1, 'n_samples': 64, 'units': ['a', 'b'], 'sibling': 0}",
    ],
)
def test_order_and_number_of_arguments_may_differ(older: str) -> None:
    states = {"MetricHistory": 1, older: 2}
    rename_older_state(states, NOW, ["MetricHistory"])
    assert states == {"MetricHistory": 1, NOW: 2}


@pytest.mark.parametrize(
    "older",
    [
        "Other{'every': 1, 'limit': nan, 'units': ['a', 'b'], 'sibling': 0}",
        "Norms{'every': 2, 'limit': nan, 'sibling': 0}",
        "Norms{'every': 1, 'limit': nan, 'sibling': 1}",
        "Norms{'every': <object>, 'sibling': 0}",
        "Norms",
    ],
)
def test_states_of_others_stay(older: str) -> None:
    states = {older: 2}
    rename_older_state(states, NOW, [])
    assert states == {older: 2}


def test_states_that_could_both_be_meant_and_those_in_use_stay() -> None:
    states = {"Norms{'every': 1, 'x': 1}": 1, "Norms{'every': 1, 'x': 2}": 2}
    rename_older_state(states, NOW, [])
    assert set(states.values()) == {1, 2}
    assert NOW not in states
    rename_older_state(states, NOW, ["Norms{'every': 1, 'x': 1}"])
    assert states[NOW] == 2


def test_growth_goes_on_from_the_first_norm_of_an_older_run(tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> ScaleStability:
        rule = DFA(net=ResidualMLP(in_features=64, width=8, depth=2), task=Classification())
        callback = ScaleStability(n_samples=32, figure=False)
        trainer = Trainer(
            max_epochs=epochs,
            limit_train_batches=2,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=[callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(rule, Digits(), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return callback

    before = fit(1)
    file = torch.load(tmp_path / "run.ckpt", weights_only=False)
    key = before.state_key
    file["callbacks"].pop(key)
    arguments = {"n_samples": 32, **before.arguments, "sibling": 0}
    arguments["frozen_accuracy"] = math.nan
    rows = before.history.rows
    file["callbacks"][f"ScaleStability{arguments!r}"] = {"rows": rows}
    torch.save(file, tmp_path / "older.ckpt")

    after = fit(2, tmp_path / "older.ckpt")
    assert [row["step"] for row in after.history.rows] == [0, 2, 4]
    last = after.history.rows[-1]["values"]
    first = rows[0]["values"]["stability/norm"]
    assert last["stability/growth"] == pytest.approx(last["stability/norm"] / first)
