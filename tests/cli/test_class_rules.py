"""Which classes and functions a configuration may name, and which class a bare name means."""

import inspect
import re
import sys
from types import ModuleType

import pytest
import torch
from jsonargparse import capture_parser
from torch import nn

from lit_credit.cli import main, run
from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.class_rules import exported_classes
from lit_credit.tasks import Task
from tests.cli.parsed import GOOD, PLACES, found_at, place_of, with_value, words_of

HERE = "tests.cli.test_class_rules"
OPTIMIZER, NET = "model.init_args.optimizer", "model.init_args.net"
SCHEDULER, TASK = "model.init_args.lr_scheduler", "model.init_args.task"
CALLED = []


def act(**kwargs):
    CALLED.append(kwargs)


class Acts:
    def __init__(self, command=""):
        CALLED.append(command)

    def __call__(self, *args):
        CALLED.append(args)


def slow_sgd(params, lr: float = 0.25) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr)


def small_net(width: int = 3) -> "nn.Module":
    return nn.Linear(64, width)


def unmarked_net(width=3):
    return nn.Linear(64, width)


def unmarked_loss(module, batch):
    return module.batch_loss(batch)


def loss_of_three(module, batch, scale):
    return scale * module.batch_loss(batch)


class Untyped(nn.Module):
    def __init__(self, act=None):
        super().__init__()
        self.act = act


@pytest.fixture(scope="module")
def parser():
    return capture_parser(lambda: run(["fit"]))


def spec(path, /, **init_args):
    return {"class_path": path, "init_args": init_args}


COMMANDS = [
    "os.system",
    spec("os.system", command="exit 1"),
    "os.remove",
    spec("os.remove", path="nowhere"),
    spec("subprocess.Popen", args="exit 1"),
    spec("subprocess.run", args="exit 1"),
    "builtins.eval",
    spec("builtins.exec", source="1/0"),
    spec("functools.partial", func="os.system"),
    spec("shutil.rmtree", path="nowhere"),
    f"{HERE}.act",
    spec(f"{HERE}.act", command="x"),
    f"{HERE}.Acts",
    spec(f"{HERE}.Acts", command="x"),
    "torch.nn.MSELoss",
]
KINDS = {
    "model": COMMANDS,
    "data": COMMANDS,
    OPTIMIZER: COMMANDS,
    SCHEDULER: COMMANDS,
    TASK: COMMANDS,
    NET: [*COMMANDS[:-1], f"{HERE}.unmarked_net", spec(f"{HERE}.unmarked_net", width=3)],
    "trainer.logger": COMMANDS,
    "trainer.profiler": [x for x in COMMANDS if isinstance(x, dict)],
    "trainer.callbacks": [[x] for x in COMMANDS],
}


@pytest.mark.parametrize("place", KINDS)
def test_what_is_not_of_the_kind_of_its_argument_is_refused_before_it_is_called(place, parser):
    for value in KINDS[place]:
        with pytest.raises(ArgumentsError, match=place.partition(".")[0]):
            parser.parse_args(words_of(with_value(place, value)))
    assert not CALLED


LOSSES = {
    "os.system": "standard library",
    "shutil.rmtree": "standard library",
    f"{HERE}.loss_of_three": r"cannot be called with \(LightningModule, Any\)",
    f"{HERE}.act": "cannot be called",
    ("os.system", "command"): "not a function that is annotated",
    (f"{HERE}.act", "command"): "not a function that is annotated",
    (f"{HERE}.unmarked_loss", "module"): "not a function that is annotated",
    ("subprocess.Popen", "args"): "standard library",
}


@pytest.mark.parametrize("path", LOSSES)
def test_a_loss_that_is_not_one_is_refused(path, parser):
    loss = path if isinstance(path, str) else spec(path[0], **{path[1]: "x"})
    value = [spec("GradientNorms", loss=loss)]
    with pytest.raises(ArgumentsError, match=LOSSES[path]):
        parser.parse_args(words_of(with_value("trainer.callbacks", value)))
    assert not CALLED


def test_a_loss_needs_no_annotation(parser):
    value = [spec("GradientNorms", loss=f"{HERE}.unmarked_loss")]
    cfg = parser.parse_args(words_of(with_value("trainer.callbacks", value)))
    assert cfg.fit.trainer.callbacks[0].init_args.loss is unmarked_loss


@pytest.mark.parametrize("form", ["word", "mapping", "arguments"])
def test_an_annotated_function_makes_the_optimizer(form, parser):
    path = f"{HERE}.slow_sgd"
    value = {"word": path, "mapping": spec(path), "arguments": spec(path, lr=0.5)}[form]
    config = with_value(OPTIMIZER, value) | {"data": "Digits"}
    rule = parser.instantiate_classes(parser.parse_args(words_of(config))).fit.model
    optimizer = rule.configure_optimizers()
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == (0.5 if form == "arguments" else 0.25)


@pytest.mark.parametrize(
    "value",
    [
        f"{HERE}.small_net",
        spec(f"{HERE}.small_net", width=2),
        {"class_path": "torchvision.models.resnet18", "dict_kwargs": {"num_classes": 10}},
        spec("torchvision.models.resnet18", norm_layer="torch.nn.InstanceNorm2d"),
        spec("Ensemble", net=spec(f"{HERE}.small_net"), members=2),
        spec("Ensemble", net=spec("MLP", hidden=[3]), members=2),
        spec(f"{HERE}.Untyped", act=spec("torch.nn.ReLU")),
    ],
    ids=str,
)
def test_nets_that_are_made_by_annotated_functions_or_have_parts(value, parser):
    cfg = parser.parse_args(words_of(with_value(NET, value)))
    net = parser.instantiate_classes(cfg).fit.model.net
    assert isinstance(net, nn.Module)
    assert isinstance(getattr(net, "act", nn.ReLU()), nn.ReLU)


@pytest.mark.parametrize(
    "value",
    [spec("os.system", command="x"), spec("subprocess.Popen", args="x"), spec(f"{HERE}.act", a=1)],
    ids=str,
)
def test_an_argument_without_a_type_makes_no_commands(value, parser):
    with pytest.raises(ArgumentsError, match=re.escape(value["class_path"])):
        parser.parse_args(words_of(with_value(NET, spec(f"{HERE}.Untyped", act=value))))
    assert not CALLED


def test_another_parser_of_the_process_is_left_alone():
    from lightning.pytorch.cli import LightningArgumentParser, OptimizerCallable

    other = LightningArgumentParser()
    other.add_argument("--optimizer", type=OptimizerCallable)
    assert other.parse_args(["--optimizer=SGD"]).optimizer.class_path == "torch.optim.SGD"
    other.add_argument("--net", type=Task)
    assert other.parse_args(["--net=lit_credit.tasks.Classification"]).net.init_args


# Bare names

NEEDED = {
    "CausalSelfAttention": {"width": 8, "heads": 2},
    "ParallelAttention": {"width": 8, "parallel_heads": 2},
    "Rotary": {"features": 8},
    "DirectFeedback": {"units": ["a"]},
    "Inverses": {"units": ["a", "b"]},
    "BlockFeedback": {"units": ["a"]},
    "Ensemble": {"net": "MLP"},
    "NGram": {"distribution": "PowerUnif"},
    "EachMember": {"task": "Classification"},
    "Supervised": {"loss": "torch.nn.MSELoss"},
    "ImageFolder": {"root": "somewhere"},
    "ArrayFile": {"file": "some.npz", "names": ["x", "y"]},
    "MemberMetric": {"metric": "Margin", "index": 0},
    "CopyError": {"ood": True},
    "PartFreezing": {"frozen": []},
    "StagedTraining": {"stages": []},
    "WarmupCosine": {"warmup": 1, "total": 3},
    "TensorDataModule": {"batch_size": 3, "val_batch_size": 3, "seed": 0},
}
BARE = {
    path: cls
    for path, cls in exported_classes().items()
    if place_of(cls) and not inspect.isabstract(cls) and not path.endswith("SeparateHeads")
}


@pytest.fixture(scope="module")
def foreign():
    """A module with a class beside each exported one, of its name and kind."""
    module = ModuleType("a_foreign_library")
    sys.modules[module.__name__] = module
    for path, cls in BARE.items():
        name = path.rpartition(".")[2]
        kind = next(kind for kind in PLACES if issubclass(cls, kind))
        setattr(module, name, type(name, (kind,), {"__module__": module.__name__}))
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize("path", BARE)
def test_a_bare_name_is_the_class_of_lit_credit(path, parser, foreign):
    name = path.rpartition(".")[2]
    needed = NEEDED.get(name, {})
    if place_of(BARE[path]) == "model":
        needed = GOOD["model"]["init_args"]
    value = spec(name, **needed) if needed else name
    place = place_of(BARE[path])
    cfg = parser.parse_args(words_of(with_value(place, [value] if "callbacks" in place else value)))
    assert found_at(place, cfg).class_path == path


def test_foreign_classes_of_one_name_are_listed(parser, foreign, monkeypatch):
    """Both libraries stand in the error, and neither class is preferred."""
    for library in ("one_library", "another_library"):
        monkeypatch.setitem(sys.modules, library, ModuleType(library))
        net = type("NetOfTwo", (nn.Module,), {"__module__": library})
        sys.modules[library].NetOfTwo = net
    with pytest.raises(ArgumentsError) as error:
        parser.parse_args(words_of(with_value(NET, "NetOfTwo")))
    assert "one_library.Net" in error.value.reason
    assert "another_library.Net" in error.value.reason
    cfg = parser.parse_args(words_of(with_value(NET, "a_foreign_library.MLP")))
    assert found_at(NET, cfg).class_path == "a_foreign_library.MLP"


@pytest.mark.parametrize(
    ("place", "name", "message"),
    [
        (NET, "ResidualMPL", "no class ResidualMPL is known; did you mean ResidualMLP?"),
        (TASK, "Qqqqqqqq", "no class Qqqqqqqq is known. A class of your own is named"),
        ("data", "ResidualMLP", "ResidualMLP is no class of the kind that is expected here"),
    ],
)
def test_a_name_that_is_not_known_is_told_with_the_closest(place, name, message, capsys):
    assert main(words_of(with_value(place, name))) == 2
    assert message in capsys.readouterr().err
