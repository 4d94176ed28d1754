"""What HPARAMS of TensorBoard finds in the event files of several runs."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.backend_context import _sort_and_reduce_to_hparams_limit

from lit_credit.cli.sweep.command import sweep
from lit_credit.trainer.hyperparameters import (
    configured,
    differing,
    hyperparameters_of,
    short_name,
)

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
  - name: exact
    model.class_path: BP
    trainer.precision: bf16-true
    trainer.callbacks+: [{class_path: FiniteGuard, init_args: {policy: skip}}]
  - {name: random, model.class_path: DFA, model.init_args.rank: 2, trainer.limit_train_batches: 1}
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


def test_options_of_the_trainer_that_the_grid_varies_have_their_values(runs):
    shown = ("rule", "trainer/precision", "trainer/limit_train_batches", "trainer/callbacks")
    sessions = [session(events) for events in runs.values()]
    assert {tuple(found[name] for name in shown) for found in sessions} == {
        ("BP", "bf16-true", 2, "[FiniteGuard(policy=skip)]"),
        ("DFA", "None", 1, "None"),  # the precision is not configured
    }


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


CONFIGURATION = {
    "seed_everything": 3,
    "test_after_fit": True,
    "init_from": None,
    "model": {
        "class_path": "lit_credit.rules.BP",
        "init_args": {"group_options": {"units": {"lr": 0.01}}, "clip_norm": None},
    },
    "data": {"class_path": "lit_credit.datamodules.Digits", "init_args": {"batch_size": 32}},
    "trainer": {
        "precision": "bf16-true",
        "limit_train_batches": 0.5,
        "accumulate_grad_batches": 2,
        "overfit_batches": 0,
        "gradient_clip_val": None,
        "logger": False,
        "callbacks": [
            {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": None}},
            {"class_path": "mine.Stop", "init_args": {"patience": 3, "monitor": "val/loss"}},
        ],
        "plugins": {"class_path": "mine.Plugin", "init_args": {"bits": 8}},
    },
}
GIVEN = {"trainer.callbacks+": [{"class_path": "Stop", "init_args": {"patience": 3}}, "Timer"]}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("trainer.precision", "trainer/precision", "bf16-true"),
        ("trainer.limit_train_batches", "trainer/limit_train_batches", 0.5),
        ("trainer.accumulate_grad_batches", "trainer/accumulate_grad_batches", 2),
        ("trainer.overfit_batches", "trainer/overfit_batches", 0),
        ("trainer.gradient_clip_val", "trainer/gradient_clip_val", "None"),
        ("trainer.logger", "trainer/logger", "false"),
        ("trainer.plugins", "trainer/plugins", "Plugin"),
        ("trainer.plugins.init_args.bits", "trainer/plugins/bits", 8),
        ("trainer.callbacks+", "trainer/callbacks", "[Stop(patience=3), Timer]"),
        (
            "trainer.callbacks",
            "trainer/callbacks",
            "[Timer(duration=None), Stop(patience=3, monitor=val/loss)]",
        ),
        ("test_after_fit", "test_after_fit", "true"),
        ("init_from", "init_from", "None"),
        ("data", "data", "Digits"),
        ("data.init_args.batch_size", "data/batch_size", 32),
        ("data.batch_size", "data/batch_size", 32),
        ("model.init_args.clip_norm", "clip_norm", "None"),
        ("model.init_args.group_options.units.lr", "group_options/units/lr", 0.01),
    ],
)
def test_every_kind_of_option_that_varies_has_its_value(option, name, value):
    module = SimpleNamespace(hparams={}, trainer=SimpleNamespace(max_epochs=None))
    with configured(CONFIGURATION), differing([option], GIVEN):
        found = hyperparameters_of(module)
    assert found == {"rule": "SimpleNamespace", name: value}
    assert set(hyperparameters_of(module)) == {"rule"}  # nothing is left of the run before


def test_what_only_the_command_line_knows_has_the_value_that_was_given():
    module = SimpleNamespace(hparams={}, trainer=SimpleNamespace(max_epochs=None))
    option = "trainer.callbacks.patience"  # of the last callback that was appended
    with configured(CONFIGURATION), differing([option], {option: 7}):
        assert hyperparameters_of(module)["trainer/callbacks/patience"] == 7
