"""Measurements that leave nothing behind."""

import hashlib
import io
import itertools
import random
import sys
import types
from collections import deque

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.inspect.state.guard import guarded, isolated
from lit_credit.testing import STATES
from lit_credit.testing.seen_state import seen_state
from lit_credit.utils.random_state import preserved_rng
from tests.support import Interrupted


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_random_states_and_autograd_come_back(fails):
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout().eval()))
    modes = [child.training for child in net.modules()]
    seed()
    expected = draw()
    seed()
    with torch.inference_mode():
        try:
            with guarded(net):
                assert not any(child.training for child in net.modules())
                assert torch.is_grad_enabled()
                assert not torch.is_inference_mode_enabled()
                (net(torch.ones(2, 2)) * torch.ones((), requires_grad=True)).sum().backward()
                draw()
                if fails:
                    raise Interrupted
        except Interrupted:
            pass
        assert torch.is_inference_mode_enabled()
    assert [child.training for child in net.modules()] == modes
    assert draw() == expected


def test_modes_may_stay():
    net = nn.Dropout()
    with torch.no_grad(), guarded(net, train=True):
        assert net.training
        assert torch.is_grad_enabled()
    assert net.training


class Merging(nn.Linear):
    """As some LoRA layers: a change of mode changes the weight."""

    def train(self, mode=True):
        if mode != self.training:
            self.weight.data += 1.0
        return super().train(mode)


def test_a_change_of_mode_does_nothing_else():
    net = nn.Sequential(Merging(2, 2))
    before = net[0].weight.clone()
    with guarded(net):
        assert not net[0].training
    assert net[0].training
    assert torch.equal(net[0].weight, before)


def test_preserved_rng_gives_the_same_numbers_again():
    seed()
    with preserved_rng():
        first = draw()
    assert draw() == first


class Busy(nn.Module):
    """Changes all that a step may change."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.metric = MulticlassAccuracy(2)
        self.norm = nn.BatchNorm1d(2)
        self.outputs, self.recent = [1], deque([1], maxlen=3)
        self.table, self.names = {"a": 1}, {"a"}
        self.count, self.last = 0, torch.zeros(2)
        self.nested = {"train": [torch.zeros(2)], "again": self.outputs}
        self.nested["itself"] = self.nested
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("unset", None)

    def forward(self, x):
        self.metric(self.norm(x), torch.zeros(len(x), dtype=torch.long))
        self.outputs.append(2)
        self.recent.append(2)
        self.table["b"] = 2
        self.names.add("b")
        self.count += 1
        self.last += 1
        self.nested["train"][0] += 1
        self.nested["itself"]["train"].append(x)
        assert self.nested["again"] is self.outputs
        self.new = 1
        self.unset = torch.ones(())
        # A buffer that the backward pass needs, and that changes.
        self.steps += 1
        return (self.weight * self.steps * x).sum()


@pytest.mark.parametrize("around", [guarded, isolated])
@pytest.mark.parametrize("fails", [False, True])
def test_attributes_and_buffers_come_back(fails, around):
    module, x = Busy(), torch.ones(3, 2)
    identities = {name: id(value) for name, value in vars(module).items()}
    try:
        with around(module):
            loss = module(x)
            if fails:
                raise Interrupted
    except Interrupted:
        pass
    else:
        loss.backward()
        assert module.weight.grad.tolist() == [3, 3]
    assert {name: id(value) for name, value in vars(module).items()} == identities
    assert (module.outputs, list(module.recent)) == ([1], [1])
    assert (module.table, module.names, module.count) == ({"a": 1}, {"a"}, 0)
    assert module.last.tolist() == [0, 0]
    assert [tensor.tolist() for tensor in module.nested["train"]] == [[0, 0]]
    assert float(module.steps) == 0
    assert module.unset is None
    assert not hasattr(module, "new")
    assert int(module.norm.num_batches_tracked) == 0
    assert module.metric.update_count == 0


X = torch.linspace(-1, 1, 12).reshape(4, 3)


def places(module):
    return [(id(p), p.data_ptr()) for p in module.parameters()]


@pytest.mark.parametrize("name", STATES)
def test_state_of_every_kind_comes_back(name):
    module = STATES[name]().train()
    module(X)
    before, where = seen_state(module), places(module)
    with guarded(module, train=True):
        first = module(X)
        assert seen_state(module) != before
    assert seen_state(module) == before
    assert places(module) == where
    assert torch.equal(module(X), first)


@pytest.mark.parametrize("name", STATES)
def test_two_isolated_runs_start_alike(name):
    module = STATES[name]().train()
    for around in (guarded, isolated):  # `isolated` also without a guard, but for what hooks count
        if (name, around) == ("counting_hook", isolated):
            continue
        before = seen_state(module)
        with around(module):
            working = seen_state(module)
            outputs = []
            for _ in range(2):
                with isolated(module):
                    outputs.append(module(X))
                assert seen_state(module) == working
        assert torch.equal(*outputs)
        assert seen_state(module) == before


class Prototypes(nn.Module):
    """A convolution whose weight each run normalises before it uses it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 1, bias=False)
        self.linear = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(4.0)

    def forward(self, x):
        for weight in (self.conv.weight, self.linear.weight):
            weight.data.div_(weight.data.norm())
        return self.linear(self.conv(x)).sum()


def test_gradients_inside_are_those_of_the_weights_that_a_run_writes():
    module, x = Prototypes(), torch.ones(1, 1, 4, requires_grad=True)
    expected = (module.linear.weight / module.linear.weight.norm()).detach().reshape(-1)
    with guarded(module), isolated(module):
        (gradient,) = torch.autograd.grad(module(x), x)
    torch.testing.assert_close(gradient.reshape(-1), expected)
    assert module.conv.weight.item() == 4.0


def test_what_a_measurement_changes_by_itself_is_kept_between_its_runs():
    """Weights that are perturbed on purpose, and hooks that record."""
    module, recorded = nn.Linear(3, 1, bias=False), []
    with guarded(module):
        module.weight.data.zero_()
        handle = module.register_forward_hook(lambda m, i, output: recorded.append(output))
        for _ in range(2):
            with isolated(module):
                assert module(X).abs().sum() == 0
        handle.remove()
    assert len(recorded) == 2
    assert module.weight.abs().sum() > 0


def test_shared_memory_stays_shared():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight.data = first.weight.data.T  # a view of the same memory
    module = nn.Sequential(first, second)
    module.half = first.weight.data[0]
    where = places(module)
    with guarded(module):
        first.weight.data.zero_()
        assert second.weight.abs().sum() == 0
    assert places(module) == where
    assert first.weight.abs().sum() > 0
    assert torch.equal(second.weight, first.weight.T)


def test_gradients_and_requires_grad_come_back():
    module = nn.Linear(3, 1)
    module(X).sum().backward()
    grad, value = module.weight.grad, module.weight.grad.clone()
    with guarded(module):
        assert module.weight.grad is None
        module(X).sum().backward()
        module.weight.requires_grad_(False)
        module.bias.register_hook(lambda g: g)
    assert module.weight.grad is grad
    assert torch.equal(grad, value)
    assert module.weight.requires_grad
    assert not module.bias._backward_hooks


OPAQUE = {
    "generator": lambda: (i for i in range(9)),
    "zip": lambda: zip([1, 2], [3, 4], strict=True),
    "cycle": lambda: itertools.cycle([1]),
    "loader": lambda: iter(torch.utils.data.DataLoader([1, 2])),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_an_iterator_that_cannot_be_put_back_is_refused_by_name_where_it_is_used(kind):
    module = nn.Module()
    module.inner = types.SimpleNamespace(parts=[OPAQUE[kind]()])
    iterator = module.inner.parts[0]
    with guarded(module):
        pass  # not used, so nothing is to be said
    with guarded(module), pytest.raises(MisconfigurationException, match=r"inner\.parts\[0\]"):
        next(module.inner.parts[0])
    assert module.inner.parts[0] is iterator
    assert next(iterator) is not None


def test_files_and_objects_of_c_are_refused_where_they_are_used(tmp_path):
    module = nn.Module()
    module.digest = hashlib.md5(b"")
    module.memory, module.count = io.StringIO(), itertools.count()
    before = module.digest.hexdigest()
    with (tmp_path / "log").open("w") as module.file, guarded(module):
        module.memory.write("a")  # these two can be copied
        assert next(module.count) == 0
        with pytest.raises(MisconfigurationException, match=r"`file`.*TextIOWrapper"):
            module.file.write("a")
        with pytest.raises(MisconfigurationException, match="`digest`"):
            module.digest.update(b"a")
    assert (tmp_path / "log").read_text() == ""
    assert module.digest.hexdigest() == before
    assert (module.memory.getvalue(), next(module.count)) == ("", 0)


DRAWS = np.random.default_rng(0)
COUNTS = {"calls": 0}


class Global(nn.Module):
    """State in a class, and in globals of its own file."""

    calls = 0
    cache: list[int] = []  # noqa: RUF012

    def forward(self, x):
        type(self).calls += 1
        self.cache.append(self.calls)
        COUNTS["calls"] += 1
        return x * draw_global()


def draw_global():
    return DRAWS.random()


def test_state_of_classes_and_of_globals_comes_back():
    module = nn.Sequential(Global())
    with guarded(module):
        first = module(X)
        with isolated(module):
            second = module(X)
        with isolated(module):
            assert torch.equal(module(X), second)
    assert (Global.calls, Global.cache, COUNTS) == (0, [], {"calls": 0})
    assert torch.equal(module(X), first)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_buffers_of_a_script_come_back():
    script = torch.jit.script(nn.BatchNorm1d(3))
    before = script.running_mean.clone()
    with guarded(script, train=True):
        script.train()
        script(X)
        assert not torch.equal(script.running_mean, before)
    assert torch.equal(script.running_mean, before)


def test_memory_that_is_short_leaves_nothing_half_replaced(monkeypatch):
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = seen_state(module), places(module)

    def fail(tensors):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("lit_credit.inspect.state.held_state.copies_of", fail)
    with pytest.raises(torch.OutOfMemoryError), guarded(module):
        pass
    assert (seen_state(module), places(module)) == before


class Writing(LightningModule):
    """Writes points in every way, and asks for an end."""

    def __init__(self, writer):
        super().__init__()
        self.writer = writer

    def say(self):
        self.log("a", 1.0)
        self.log_dict({"a": 1.0})
        self.logger.log_metrics({"a": 1.0})
        self.logger.experiment.add_scalar("a", 1.0)
        self.logger.experiment["a"].append(1.0)
        for logger in self.loggers:
            logger.log_hyperparams({"a": 1})
        self.writer.add_scalar("a", 1.0)
        sys.modules["wandb"].log({"a": 1.0})
        sys.modules["wandb"].run.log({"a": 1.0})
        self.trainer.should_stop = True


def test_nothing_is_written(tmp_path, monkeypatch):
    written = []
    wandb = types.ModuleType("wandb")
    wandb.log, wandb.run = written.append, types.SimpleNamespace(log=written.append)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logger = CSVLogger(tmp_path / "csv", "", "")
    trainer = Trainer(accelerator="cpu", logger=logger, barebones=False)
    module = Writing(SummaryWriter(str(tmp_path / "own")))
    module._trainer = trainer
    for around in (guarded(module, trainer), isolated(module)):
        with around:
            assert isinstance(module.logger, CSVLogger)
            assert (module.logger.log_dir, module.logger.name) == (logger.log_dir, "")
            module.say()
    module.writer.close()
    logger.save()
    assert written == []
    assert not trainer.should_stop
    assert trainer.loggers == [logger]
    assert not (tmp_path / "csv" / "metrics.csv").exists()
    assert EventAccumulator(str(tmp_path / "own")).Reload().Tags()["scalars"] == []
