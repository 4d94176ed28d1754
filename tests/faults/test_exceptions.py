"""An exception at any step: files are whole, nothing is left in the module, resuming is exact."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lit_credit.models import ResidualMLP
from lit_credit.runs.history import read_history
from tests.support import hooks
from tests.support.resumable import HISTORIES, STEPS, fit, histories, last, mlp, rule, same

HOOKS = [
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
]


class Boom(Exception):
    """No error of anybody's."""


class Faulty(Callback):
    """Raises in one hook, from a step on."""

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self.fail)

    def fail(self, trainer, *args, **kwargs):
        if trainer.global_step >= self.step and not trainer.sanity_checking:
            raise Boom


class FaultyNet(ResidualMLP):
    """Raises at its n-th training forward."""

    calls_left = -1

    def forward(self, x):
        self.calls_left -= self.training
        if self.calls_left == 0:
            raise Boom
        return super().forward(x)


class FaultyLogger(CSVLogger):
    """Raises at its n-th call."""

    calls_left = -1

    def log_metrics(self, metrics, step=None):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise Boom
        super().log_metrics(metrics, step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    module = rule()
    fit(module, folder)
    return module.state_dict(), histories(folder)


def check(module, ours, folder, before):
    """After an exception."""
    assert hooks(module) == before
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    for name, callback in zip(HISTORIES, ours, strict=True):
        path = folder / f"{name}.jsonl"
        assert (read_history(path) if path.exists() else []) == callback.history.rows
    assert not list(folder.rglob("*.partial"))


def broken(folder, module, **kwargs):
    """Fit until the fault, and look around."""
    before, ours = hooks(module), []

    class Ours(Callback):
        def setup(self, trainer, pl_module, stage):
            ours.extend(c for c in trainer.callbacks if hasattr(c, "history"))

    kwargs["before"] = [Ours(), *kwargs.get("before", [])]
    with pytest.raises(Boom):
        fit(module, folder, **kwargs)
    check(module, ours, folder, before)


def resumes(folder, whole):
    state, rows = whole
    torch.load(last(folder), weights_only=True)
    module = rule()
    fit(module, folder, ckpt_path=last(folder))
    same(module.state_dict(), state)
    assert histories(folder) == rows


@pytest.mark.few(7)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_callback_that_raises_in_the_second_epoch_or_at_its_end(hook, place, whole, tmp_path):
    broken(tmp_path, rule(), **{place: [Faulty(hook, STEPS + 2)]})
    resumes(tmp_path, whole)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start", "on_train_batch_end"])
def test_one_that_raises_before_there_is_a_checkpoint(hook, place, whole, tmp_path):
    """The run starts over; what was measured is kept beside it."""
    broken(tmp_path, rule(), **{place: [Faulty(hook, 0)]})
    assert not last(tmp_path).exists()
    module = rule()
    fit(module, tmp_path)
    same(module.state_dict(), whole[0])
    assert histories(tmp_path) == whole[1]


@pytest.mark.parametrize("call", [STEPS + 1, STEPS + 4, 2 * STEPS])
def test_a_net_that_raises(call, whole, tmp_path):
    module = rule(net=lambda: mlp(FaultyNet))
    module.net.calls_left = call
    broken(tmp_path, module)
    resumes(tmp_path, whole)


def test_a_logger_that_raises_at_any_call(whole, tmp_path):
    """Those of our measurements, of training and of validation, in turn."""
    for call in range(12, 24, 3):
        folder = tmp_path / str(call)
        logger = FaultyLogger(folder, name="", version="")
        logger.calls_left = call
        broken(folder, rule(), logger=logger, log_every_n_steps=2)
        resumes(folder, whole)
