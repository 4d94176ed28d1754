"""A class that is named has the defaults of its own signature, whatever it replaces."""

import dataclasses
import inspect

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
import torch
from jsonargparse import Namespace, capture_parser
from lightning.pytorch import Callback
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer, lr_scheduler, swa_utils
from torchmetrics import Metric

from lit_credit.cli import run
from lit_credit.cli.class_rules import exported_classes
from tests.cli.parsed import GOOD, found_at, place_of, with_value, words_of

REQUIRED = {  # values of arguments without a default
    "T_0": 3,
    "T_max": 3,
    "base_lr": 0.1,
    "batch_size": 3,
    "batch_size_fn": "tests.cli.test_class_defaults.half",
    "dirpath": "somewhere",
    "distribution": "PowerUnif",
    "features": 8,
    "file": "some.npz",
    "frozen": [],
    "gamma": 0.5,
    "heads": 2,
    "loss": "torch.nn.MSELoss",
    "lr_lambda": "tests.cli.test_class_defaults.half",
    "max_lr": 0.2,
    "milestones": [1],
    "monitor": "val/loss",
    "names": ["x", "y"],
    "net": "MLP",
    "parallel_heads": 2,
    "pruning_fn": "l1_unstructured",
    "root": "somewhere",
    "save_dir": "somewhere",
    "scheduling": {0: 1},
    "schedulers": [],
    "seed": 0,
    "stages": [],
    "step_size": 2,
    "swa_lr": 0.1,
    "swa_lrs": 0.1,
    "task": "Classification",
    "total": 3,
    "val_batch_size": 3,
    "warmup": 1,
    "width": 8,
}


def half(step):
    return 0.5**step


def public(module, base):
    found = (x for name, x in vars(module).items() if not name.startswith("_"))
    return [x for x in found if inspect.isclass(x) and issubclass(x, base) and x is not base]


def of_lit_credit():
    """Those that a configuration can name: metrics and layers are made by tasks and nets."""
    made = ("lit_credit.feedback.", "lit_credit.studies.ngram.SeparateHeads")
    for path, cls in exported_classes().items():
        part = place_of(cls) == "model.init_args.net" and path.startswith(made)
        part = part or issubclass(cls, Metric)
        if place_of(cls) and not inspect.isabstract(cls) and not part:
            yield cls


CLASSES = dict.fromkeys(
    [
        *public(torch.optim, Optimizer),
        *public(lr_scheduler, lr_scheduler.LRScheduler),
        lr_scheduler.ReduceLROnPlateau,
        swa_utils.SWALR,
        ReduceLROnPlateau,
        *public(lightning.pytorch.loggers, Logger),
        *public(lightning.pytorch.callbacks, Callback),
        *of_lit_credit(),
    ]
)
# It schedules objects, and its `optimizer` does not come first: no configuration can make one.
del CLASSES[lr_scheduler.ChainedScheduler]


def signatures(cls):
    """The defaults of the class and of those that it is derived from; empty if required."""
    found = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            found = parameters | found
            if not any(x.kind is x.VAR_KEYWORD for x in parameters.values()):
                break
    named = {k: v for k, v in found.items() if v.kind not in (v.VAR_POSITIONAL, v.VAR_KEYWORD)}
    made = issubclass(cls, Optimizer | lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau)
    given = {"self", "params", "optimizer", "defaults"} if made else {"self"}
    return {k: v.default for k, v in named.items() if k not in given}


def plain(value):
    if isinstance(value, Namespace):
        return plain(vars(value))
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


@pytest.fixture(scope="module")
def parser():
    return capture_parser(lambda: run(["fit"]))


def init_args(parser, place, *configs, words=()):
    spec = plain(found_at(place, parser.parse_args([*words_of(*configs), *words])))
    return spec.get("init_args", {})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_class_alone_has_the_defaults_of_its_own_signature(cls, parser):
    # torch's ReduceLROnPlateau is not an LRScheduler.
    place = place_of(cls) or "model.init_args.lr_scheduler"
    expected = signatures(cls)
    needed = {name for name, default in expected.items() if default is inspect.Parameter.empty}
    spec = {"class_path": f"{cls.__module__}.{cls.__name__}"}
    spec["init_args"] = {name: REQUIRED[name] for name in needed & REQUIRED.keys()}
    found = init_args(parser, place, with_value(place, [spec] if "callbacks" in place else spec))
    assert found.keys() >= expected.keys() & inspect.signature(cls).parameters.keys()
    for name in (found.keys() & expected.keys()) - needed:
        if inspect.isclass(expected[name]):
            assert found[name]["class_path"].endswith(expected[name].__name__)
        else:
            assert found[name] == plain(expected[name]), name


SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
OPTIMIZER, CALLBACKS = "model.init_args.optimizer", "trainer.callbacks"


def test_an_optimizer_in_yaml_has_what_is_written_and_its_own_defaults(parser):
    found = init_args(parser, OPTIMIZER, with_value(OPTIMIZER, SGD))
    assert (found["lr"], found["momentum"], found["weight_decay"]) == (0.1, 0.9, 0.0)
    # Without a class, arguments are those of the default.
    lr = ["--model.init_args.optimizer.init_args.lr=0.5"]
    found = init_args(parser, OPTIMIZER, GOOD, words=lr)
    assert found == init_args(parser, OPTIMIZER, with_value(OPTIMIZER, "AdamW")) | {"lr": 0.5}


@pytest.mark.parametrize("word", ["model.optimizer", "model.init_args.optimizer.class_path"])
def test_an_optimizer_of_the_command_line_keeps_only_what_was_written(word, parser, capsys):
    words = [f"--{word}=torch.optim.RMSprop"]
    alone = init_args(parser, OPTIMIZER, with_value(OPTIMIZER, "torch.optim.RMSprop"))
    assert init_args(parser, OPTIMIZER, GOOD, words=words) == alone
    found = init_args(parser, OPTIMIZER, with_value(OPTIMIZER, SGD), words=words)
    assert found == alone | {"lr": 0.1, "momentum": 0.9}
    assert not capsys.readouterr().err


def test_a_line_names_what_another_class_does_not_take_or_keeps(parser, capsys):
    adamw = {
        "betas": [0.5, 0.9],
        "eps": 1e-8,
        "weight_decay": 0.01,
    }
    config = with_value(OPTIMIZER, {"class_path": "torch.optim.AdamW", "init_args": adamw})
    init_args(parser, OPTIMIZER, config, words=["--model.optimizer=torch.optim.SGD"])
    assert capsys.readouterr().err.splitlines() == [
        "lit-credit: SGD replaces AdamW and does not take its `betas`.",
        "lit-credit: SGD replaces AdamW and keeps its `weight_decay`.",
    ]


def test_another_rule_keeps_what_was_written_and_it_takes(parser, capsys):
    dfa = {"task": "Classification", "net": "MLP", "error": "per_position", "clip_norm": 3.0}
    config = GOOD | {"model": {"class_path": "DFA", "init_args": dfa}}
    found = init_args(parser, "model", config, words=["--model.class_path=FA"])
    assert found["clip_norm"] == 3.0
    assert found["net"]["class_path"] == "lit_credit.models.MLP"
    assert "error" not in found
    line = "lit-credit: FA replaces DFA and does not take its `error`.\n"
    assert capsys.readouterr().err == line


def test_a_net_of_a_second_file_has_its_own_defaults(parser):
    net = "model.init_args.net"
    second = {"model": {"init_args": {"net": {"class_path": "ResidualMLP"}}}}
    alone = init_args(parser, net, with_value(net, "ResidualMLP"))
    assert init_args(parser, net, GOOD, second) == alone


MADE = {"class_path": "MLP", "init_args": {"norm": "batch", "hidden": [3], "init_std": 0.1}}


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("model.init_args.net.init_args.norm=null", {"norm": None}),
        ("model.net.norm=null", {"norm": None}),
        ("model.init_args.net.init_args.init_std=null", {"init_std": None}),
        ('model.init_args.net.init_args={"norm": null, "hidden": [4]}', {"norm": None}),
        ("model.init_args.net.init_args.hidden=[4, 5]", {"hidden": [4, 5]}),
        ("model.init_args.net.init_args.bias=false", {"bias": False}),
        ("model.init_args.net.init_args.activation=gelu", {"activation": "gelu"}),
    ],
)
def test_a_word_for_an_argument_of_a_net_keeps_its_type(word, changed, parser):
    """jsonargparse makes the text "None" of null when it hands a value to a nested class."""
    net = "model.init_args.net"
    config = with_value(net, MADE)
    expected = init_args(parser, net, config) | changed
    if "{" in word:
        expected |= {"hidden": [4]}
    assert init_args(parser, net, config, words=[f"--{word}"]) == expected


def test_null_switches_an_optimizers_option_off(parser):
    fused = {"class_path": "torch.optim.AdamW", "init_args": {"fused": True}}
    for word in (".fused=null", '={"fused": null}'):
        words = [f"--model.init_args.optimizer.init_args{word}"]
        found = init_args(parser, OPTIMIZER, with_value(OPTIMIZER, fused), words=words)
        assert found["fused"] is None


@pytest.mark.parametrize("name", ["CSVLogger", "TensorBoardLogger"])
def test_a_logger_that_needs_a_folder_takes_the_runs(name, parser):
    found = init_args(parser, "trainer.logger", with_value("trainer.logger", name))
    assert found["save_dir"] == ""
    assert found.get("default_hp_metric") is (True if name == "TensorBoardLogger" else None)


def test_the_default_logger_can_be_adjusted(parser):
    found = init_args(parser, "trainer.logger", GOOD, words=["--trainer.logger.log_graph=true"])
    assert (found["log_graph"], found["default_hp_metric"], found["save_dir"]) == (True, False, "")


def test_a_list_of_callbacks_replaces_the_earlier_list(parser):
    """One of the same length would be filled up from it, item by item."""
    watch = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss"}}
    alone = init_args(parser, CALLBACKS, with_value(CALLBACKS, [watch]))
    for further in (["GradientNorms"], ["GradientNorms", "ResidualNorms"]):
        config = with_value(CALLBACKS, [watch, *further])
        assert init_args(parser, CALLBACKS, config) == alone
    first = with_value(CALLBACKS, [watch])
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "x"}}
    found = init_args(parser, CALLBACKS, first, {"trainer": {"callbacks": [stopping]}})
    assert found == init_args(parser, CALLBACKS, with_value(CALLBACKS, [stopping]))


def test_the_configuration_of_an_older_run_is_understood(parser):
    """All arguments written out, and TensorBoardLogger by its own name."""
    cfg = parser.parse_args(words_of(GOOD))
    old = plain(cfg.fit)
    old = {name: old[name] for name in ("model", "data", "trainer")}
    args = old["trainer"]["logger"]["init_args"]
    old["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": args,
    }
    again = plain(parser.parse_args(words_of(old)).fit)
    assert {name: again[name] for name in old} == old


def test_the_help_names_the_default(capsys):
    with pytest.raises(SystemExit):
        run(["fit", "--model.help=BP"])
    assert "torch.optim.AdamW" in capsys.readouterr().out
