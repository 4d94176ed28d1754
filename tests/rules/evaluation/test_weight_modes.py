"""Optimizers that evaluate other weights than they train."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD, Optimizer

from lit_credit.callbacks import ResidualNorms
from lit_credit.rules import BP, DFA, FA
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded
from tests.support.resumable import mlp

BETA, LR = 0.9, 0.3


class ScheduleFreeSGD(Optimizer):
    """The mean x of points z is evaluated, and gradients are taken at y, between the two.

    With the protocol of the package ``schedulefree``.
    """

    def __init__(self, params, lr=LR):
        super().__init__(params, {"lr": lr, "k": 0, "train_mode": False})

    def _swap(self, mode, weight):
        for group in self.param_groups:
            if group["train_mode"] is not mode:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.data.lerp_(end=self.state[p]["z"], weight=weight)
            group["train_mode"] = mode

    def eval(self):
        self._swap(False, 1 - 1 / BETA)

    def train(self):
        self._swap(True, 1 - BETA)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("not in train mode")
            c = 1 / (group["k"] + 1)
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, c)
                p.add_(p.grad, alpha=group["lr"] * (BETA * (1 - c) - 1))
                z.sub_(p.grad, alpha=group["lr"])
            group["k"] += 1
        return loss


class Seen(Callback):
    """The weights at each point."""

    def __init__(self):
        self.at = []

    def _look(self, when, module):
        self.at.append((when, module.net.embed.weight.detach().clone()))

    def on_train_batch_start(self, trainer, module, *_):
        self._look("train", module)

    def on_validation_batch_start(self, trainer, module, *_):
        self._look("sanity" if trainer.sanity_checking else "val", module)


def fit(*callbacks, rule=BP, **kwargs):
    module = seeded(lambda: rule(mlp(), Classification(5), optimizer=ScheduleFreeSGD))
    ckpt_path = kwargs.pop("ckpt_path", None)
    options = {"max_epochs": 3, "callbacks": list(callbacks), "num_sanity_val_steps": 1}
    trainer = quiet_trainer(**(options | kwargs))
    trainer.fit(module, loader(), loader(n=32), ckpt_path=ckpt_path)
    return trainer, module


def by_hand(epochs):
    """Weights y before each step and x after each epoch, of a loop without Lightning."""
    net = seeded(mlp)
    optimizer = ScheduleFreeSGD(net.parameters())
    ys, xs = [], []
    data = loader()
    for _ in range(epochs):
        optimizer.train()
        for x, y in data:
            ys.append(net.embed.weight.detach().clone())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        state = [p.detach().clone() for p in net.parameters()]
        optimizer.eval()
        xs.append(net.embed.weight.detach().clone())
        optimizer.train()
        for p, before in zip(net.parameters(), state, strict=True):
            p.data.copy_(before)
    return ys, xs


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"limit_val_batches": 0}])
def test_each_phase_has_its_weights(options):
    seen = Seen()
    _, module = fit(seen, **options)
    ys, xs = by_hand(3)
    trained = [weight for when, weight in seen.at if when == "train"]
    assert len(trained) == len(ys) == 18
    for found, expected in zip(trained, ys, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(module.net.embed.weight, xs[-1])
    evaluated = [weight for when, weight in seen.at if when == "val"]
    if not options:
        for found, expected in zip(evaluated[::2], xs, strict=True):
            assert torch.equal(found, expected)
        assert not torch.equal(xs[1], ys[12])


@pytest.mark.few(3)
@pytest.mark.parametrize("rule", [BP, FA])
@pytest.mark.parametrize(
    "when",
    [
        {"every_n_train_steps": 4},
        {"save_on_train_epoch_end": True},
        {"save_on_train_epoch_end": False},
    ],
)
def test_checkpoints_hold_the_evaluated_weights_and_resume_to_the_bit(tmp_path, when, rule):
    whole, expected = fit(rule=rule)
    saved = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **when)
    _, watched = fit(saved, rule=rule, enable_checkpointing=True, default_root_dir=tmp_path)
    files = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem[5:]))
    assert len(files) > 2
    for name, value in expected.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name])
    for path in files[:-1]:
        trainer, resumed = fit(rule=rule, ckpt_path=path, num_sanity_val_steps=0)
        assert trainer.global_step == 18
        for name, value in expected.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name])
    checkpoint = torch.load(files[-1], weights_only=True)
    if int(files[-1].stem[5:]) == 18:
        for name, value in expected.state_dict().items():
            assert torch.equal(checkpoint["state_dict"][name], value)
    loaded = rule.load_from_checkpoint(files[-1], net=mlp(), task=Classification(5))
    weights = checkpoint["state_dict"]["net.embed.weight"]
    assert torch.equal(loaded.net.embed.weight, weights)
    assert not torch.equal(weights, checkpoint["trained_weights"]["net.embed.weight"])
    after = tmp_path / "after.ckpt"
    whole.save_checkpoint(after)
    longer = [fit(rule=rule, max_epochs=5, **more)[1] for more in ({}, {"ckpt_path": after})]
    for name, value in longer[0].state_dict().items():
        assert torch.equal(value, longer[1].state_dict()[name])


def test_validation_and_test_after_fit_see_the_evaluated_weights():
    trainer, module = fit()
    x, y = images(32)
    expected = torch.nn.functional.cross_entropy(module.net(x), y).item()
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-5)
    for look in (trainer.validate, trainer.test):
        (found,) = look(module, loader(n=32), verbose=False)
        assert next(iter(found.values())) == pytest.approx(expected, rel=1e-5)


def test_diagnostics_see_the_trained_weights_and_change_nothing(tmp_path):
    _, expected = fit(rule=DFA)
    norms = ResidualNorms(every_n_steps=1)
    _, module = fit(norms, rule=DFA, default_root_dir=tmp_path)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])
    assert len(norms.history.rows) == 19


def test_other_optimizers_save_no_more_than_before(tmp_path):
    module = seeded(lambda: BP(mlp(), Classification(5), optimizer=lambda p: SGD(p, lr=0.1)))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, loader(), loader(n=32))
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    assert "trained_weights" not in torch.load(tmp_path / "plain.ckpt", weights_only=True)
