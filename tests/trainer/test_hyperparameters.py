"""What HPARAMS of TensorBoard finds in the event files of several runs."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.backend_context import _sort_and_reduce_to_hparams_limit

from lit_credit.cli.sweep.command import sweep
from lit_credit.trainer.hyperparameters import differing, hyperparameters_of, short_name

BASE = """
model:
  class_path: BP
  init_args:
    task: Classification
    net: {class_path: MLP, init_args: {in_features: 64, hidden: [8]}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
data: Digits
trainer: {accelerator: cpu, max_epochs: 1, limit_train_batches: 2, limit_val_batches: 1}
"""
GRID = """
model.init_args.net.init_args.hidden: [[8], [8, 8]]
seed_everything: [7]
cases:
  - {name: exact, model.class_path: BP}
  - {name: random, model.class_path: DFA, model.init_args.rank: 2}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The event files of a sweep whose points have different options."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "base.yaml").write_text(BASE)
    (folder / "grid.yaml").write_text(GRID)
    rows = sweep([folder / "base.yaml"], folder / "grid.yaml", folder / "t.csv", jobs=2)
    assert {row["status"] for row in rows} == {"finished"}
    return {row["folder"]: EventAccumulator(row["folder"]).Reload() for row in rows}


def content(events, tag):
    return events.SummaryMetadata(tag).plugin_data.content


def session(events):
    found = metadata.parse_session_start_info_plugin_data(
        content(events, metadata.SESSION_START_INFO_TAG)
    )
    return {k: getattr(v, v.WhichOneof("kind")) for k, v in found.hparams.items()}


def test_the_first_columns_are_what_tells_the_runs_apart(runs):
    for events in runs.values():
        found = metadata.parse_experiment_plugin_data(content(events, metadata.EXPERIMENT_TAG))
        _sort_and_reduce_to_hparams_limit(found, 5)  # TensorBoard shows five
        names = [info.name for info in found.hparam_infos]
        assert names == ["net/hidden", "optimizer/lr", "rank", "rule", "seed"]
        assert [info.name.tag for info in found.metric_infos] == ["hp/accuracy"]


def test_values_are_short_and_the_same_names_are_in_all_runs(runs):
    sessions = [session(events) for events in runs.values()]
    assert {(s["rule"], s["net/hidden"], str(s["rank"])) for s in sessions} == {
        ("BP", "[8]", "None"),
        ("BP", "[8, 8]", "None"),
        ("DFA", "[8]", "2.0"),
        ("DFA", "[8, 8]", "2.0"),
    }
    for found in sessions:
        assert (found["seed"], found["optimizer/lr"], found["optimizer"]) == ("7", 0.01, "Adam")
        assert (found["net"], found["data"], found["task"]) == ("MLP", "Digits", "Classification")
        assert found["trainer/max_epochs"] == 1
        assert not [k for k, v in found.items() if "init_args" in k or "lit_credit" in str(v)]
        assert "clip_norm" not in found  # not set


def test_text_holds_the_configuration(runs):
    for folder, events in runs.items():
        (event,) = events.Tensors("config/text_summary")
        with open(f"{folder}/config.yaml") as file:
            assert event.tensor_proto.string_val[0].decode() == f"```yaml\n{file.read()}```"


def test_a_run_of_a_sweep_lies_in_the_folder_of_its_seed(runs):
    assert [folder.rsplit("/", 1)[1] for folder in runs] == ["seed_7"] * 4


def test_a_run_in_python_shows_names_of_classes_and_functions():
    module = SimpleNamespace(
        hparams={
            "net": torch.nn.Linear(1, 1),
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "act": torch.relu,
            "flag": True,
            "sizes": (1, 2),
            "unset": None,
            "_class_path": "x",
        },
        trainer=SimpleNamespace(max_epochs=None),
    )
    with differing(["model.unset", "data.init_args.batch_size"]):
        found = hyperparameters_of(module)
    assert found == {
        "unset": "None",
        "data/batch_size": "None",
        "rule": "SimpleNamespace",
        "net": "Linear",
        "optimizer": "SGD",
        "act": "relu",
        "flag": "true",
        "sizes": "(1, 2)",
    }


@pytest.mark.parametrize(
    ("option", "name"),
    [("model", "rule"), ("model.net", "net"), ("trainer.callbacks+", "trainer/callbacks")],
)
def test_short_names_of_shorthands(option, name):
    assert short_name(option) == name
