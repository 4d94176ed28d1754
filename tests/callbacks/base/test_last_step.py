"""What the last training batch changed."""

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks.base.last_step import LastStepDiagnostic
from lit_credit.diagnosis import diagnose
from lit_credit.rules import DFA
from tests import support
from tests.support import fit


class Updates(LastStepDiagnostic):
    """Keeps a copy of every update, by step."""

    name = "updates"
    section = "updates"

    def __init__(self, **kwargs):
        super().__init__(n_samples=4, figure=False, **kwargs)
        self.seen = {}

    def update(self, chunk):
        pass

    def compute(self):
        update = self.last_update
        copy = None if update is None else {name: u.clone() for name, u in update.items()}
        self.seen[self._last_step] = copy
        return {"seen": float(update is not None)}


class Twin(Callback):
    """Copies all parameters around every batch."""

    def __init__(self, counted=None):
        self.changes, self.counted, self.copies = {}, counted, {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = {name: p.detach().clone() for name, p in module.named_parameters()}
        if self.counted is not None:
            self.copies[trainer.global_step] = self.counted._before is not None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        after = dict(module.named_parameters())
        change = {n: (after[n] - b).detach() for n, b in self.before.items()}
        self.changes.setdefault(trainer.global_step, change)  # later batches only accumulate


class Plain(LightningModule):
    def __init__(self):
        seed_everything(1, verbose=False)
        super().__init__()
        self.net = nn.Linear(support.FEATURES, support.CLASSES)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def batch_loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.batch_loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


class Gan(Plain):
    """Two optimizers, one step each per batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.batch_loss(batch))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD([p], lr=0.1) for p in self.net.parameters()]


class Pairs(Plain):
    """A step of manual optimization after every second batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.batch_loss(batch))
        if batch_idx % 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


def run(tmp_path, module, callback, **kwargs):
    twin = Twin(callback)
    fit(tmp_path, module, callback, twin, logger=False, **kwargs)
    return twin


def check(seen, twin, names):
    assert all(update is None for step, update in seen.items() if step == 0)
    for step, update in seen.items():
        if step:
            assert set(update) == set(names)
            for name, change in update.items():
                assert change.abs().sum() > 0
                torch.testing.assert_close(change, twin.changes[step][name], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "limits", "steps"),
    [
        ({"every_n_steps": 1}, {}, range(13)),
        ({"every_n_steps": 5}, {}, [0, 5, 10, 12]),
        ({"every_n_epochs": 2}, {}, [0, 8, 12]),
        ({"every_n_epochs": 9}, {"max_steps": 7, "max_epochs": -1}, [0, 7]),
    ],
)
def test_the_update_is_what_the_last_batch_changed(tmp_path, schedule, limits, steps):
    callback = Updates(**schedule)
    twin = run(tmp_path, Plain(), callback, **limits)
    assert list(callback.seen) == list(steps)
    check(callback.seen, twin, ["net.weight", "net.bias"])
    copied = [step for step, copied in twin.copies.items() if copied]
    assert copied == sorted({0, *(step - 1 for step in steps if step)})  # and no other batch
    assert callback.last_update is None
    assert callback._before is None


def test_two_optimizers_make_one_update(tmp_path):
    callback = Updates(every_n_steps=3)
    twin = run(tmp_path, Gan(), callback)
    assert list(callback.seen)[:4] == [0, 4, 6, 10]
    check(callback.seen, twin, ["net.weight", "net.bias"])


@pytest.mark.parametrize("every", [{"every_n_steps": 1}, {"every_n_epochs": 1}])
def test_a_batch_that_only_accumulates_makes_no_update(tmp_path, every):
    callback = Updates(**every)
    twin = run(tmp_path, Plain(), callback, accumulate_grad_batches=2)
    check(callback.seen, twin, ["net.weight", "net.bias"])
    callback = Updates(every_n_epochs=1)
    three = run(tmp_path, Pairs(), callback, limit_train_batches=3, max_epochs=1)
    assert callback.seen == {0: None, 1: None}  # the third batch of the epoch made no step
    assert three.copies[1]


def test_several_updates_of_a_rule_in_one_step_make_one_update(tmp_path):
    callback = Updates(every_n_steps=2)
    rule = support.rule(DFA, updates_per_step=2)
    twin = run(tmp_path, rule, callback)
    assert len(callback.seen) == 13
    check(callback.seen, twin, [n for n, p in rule.named_parameters() if p.requires_grad])


def test_no_update_is_seen_outside_of_training(tmp_path):
    callback = Updates()
    trainer = support.trainer(tmp_path, callback, logger=False)
    module = support.Validated()
    trainer.fit(module, support.train_loader(), support.val_loader())
    assert callback.seen[12] is not None
    callback.seen.clear()
    trainer.validate(module, support.val_loader())
    assert callback.seen == {12: None}
    other = Updates()
    diagnose(module, other, support.train_loader())
    assert list(other.seen.values()) == [None]


def test_an_interrupted_batch_leaves_no_copy(tmp_path):
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == 2:
                raise support.Interrupted
            return super().training_step(batch, batch_idx)

    callback = Updates(every_n_steps=1)
    with pytest.raises(support.Interrupted):
        run(tmp_path, Fails(), callback)
    assert callback.last_update is None
    assert callback._before is None
