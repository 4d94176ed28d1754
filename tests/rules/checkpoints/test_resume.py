"""Resuming with another configuration: refused, or taken, never ignored."""

import functools
import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import lr_scheduler as schedules

from lit_credit.models import ResidualMLP
from lit_credit.rules import BP
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

STEPS = 6
"""Of an epoch."""


def sgd(params, **kwargs):
    return torch.optim.SGD(params, **({"lr": 0.1, "momentum": 0.9} | kwargs))


of = functools.partial


def rule(optimizer=sgd, scheduler=None, **kwargs):
    net = ResidualMLP(20, width=8, num_classes=5, depth=1)
    return BP(net, Classification(5), optimizer=optimizer, lr_scheduler=scheduler, **kwargs)


def fit(module, folder, epochs, ckpt_path=None, **kwargs):
    checkpoint = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    options = {"callbacks": [checkpoint], "enable_checkpointing": True, "max_epochs": epochs}
    trainer = quiet_trainer(default_root_dir=folder, **(options | kwargs))
    trainer.fit(module, loader(), loader(n=32), ckpt_path=ckpt_path)
    return module, trainer


def saved_by(folder, module, old=False):
    fit(seeded(lambda: module()), folder, 2)
    path = folder / "last.ckpt"
    if old:
        kept = torch.load(path, weights_only=True)
        del kept["configuration"]
        torch.save(kept, path)
    return path


def resume(path, module, policy=None, epochs=3, **kwargs):
    module = seeded(module)
    if policy is not None:
        module.on_resume = policy
    return fit(module, path.parent / "resumed", epochs, ckpt_path=path, **kwargs)


COSINE = of(schedules.CosineAnnealingLR, T_max=5)
ONE = {"lr_interval": "step"}
CHANGES = {
    "lr": (rule, of(rule, of(sgd, lr=0.3)), "optimizer.lr 0.1 there, 0.3 here"),
    "weight decay": (rule, of(rule, of(sgd, weight_decay=0.1)), "weight_decay 0 there, 0.1 here"),
    "momentum": (rule, of(rule, of(sgd, momentum=0.5)), "momentum 0.9 there, 0.5 here"),
    "optimizer": (rule, of(rule, torch.optim.Adam), "optimizer torch.optim.sgd.SGD there"),
    "no schedule": (of(rule, sgd, COSINE), rule, "CosineAnnealingLR there, none here"),
    "a schedule": (rule, of(rule, sgd, COSINE), "lr_scheduler none there"),
    "T_max": (
        of(rule, sgd, COSINE),
        of(rule, sgd, of(schedules.CosineAnnealingLR, T_max=9)),
        "lr_scheduler.T_max 5 there, 9 here",
    ),
    "lr below a schedule": (
        of(rule, sgd, COSINE),
        of(rule, of(sgd, lr=0.3), COSINE),
        "optimizer.lr 0.1 there, 0.3 here",
    ),
    "max_lr": (
        of(rule, sgd, of(schedules.OneCycleLR, max_lr=1.0, total_steps=30), **ONE),
        of(rule, sgd, of(schedules.OneCycleLR, max_lr=2.0, total_steps=30), **ONE),
        "lr_scheduler.max_lr 1.0 there, 2.0 here",
    ),
    "a schedule in a schedule": (
        of(rule, sgd, lambda o: schedules.ChainedScheduler([schedules.StepLR(o, 2)])),
        of(rule, sgd, lambda o: schedules.ChainedScheduler([schedules.StepLR(o, 3)])),
        "lr_scheduler.schedulers[0].step_size 2 there, 3 here",
    ),
    "interval": (
        of(rule, sgd, COSINE),
        of(rule, sgd, COSINE, **ONE),
        "lr_interval epoch there, step here",
    ),
    "clip": (of(rule, clip_norm=1.0), of(rule, clip_norm=0.1), "clip_norm 1.0 there, 0.1 here"),
    "clip per unit": (
        of(rule, clip_per_unit={"blocks.*": 1.0}),
        of(rule, clip_per_unit={"blocks.*": 2.0}),
        "clip_per_unit {'blocks.*': 1.0} there",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_refused_with_both_values_and_nothing_is_trained(case, tmp_path):
    before, after, says = CHANGES[case]
    path = saved_by(tmp_path, before)
    module = seeded(after)
    with pytest.raises(ValueError, match="`--on_resume configured`") as raised:
        fit(module, tmp_path / "resumed", 3, ckpt_path=path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "resumed").rglob("*.ckpt"))


@pytest.mark.parametrize("case", ["lr", "weight decay", "momentum", "T_max", "lr below a schedule"])
def test_of_an_older_checkpoint_the_states_are_compared(case, tmp_path):
    before, after, says = CHANGES[case]
    path = saved_by(tmp_path, before, old=True)
    with pytest.raises(ValueError, match="`--on_resume configured`") as raised:
        resume(path, after)
    assert says in str(raised.value)
    resume(path, before)  # a rate that the schedule has changed is no difference


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_configured_acts_from_the_checkpoint_on(case, tmp_path):
    """Rates and options are those of a run that always had them."""
    before, after, _ = CHANGES[case]
    path = saved_by(tmp_path, before)
    module, trainer = resume(path, after, "configured")
    straight, reference = fit(seeded(after), tmp_path / "straight", 3)
    ours, theirs = (
        [
            {k: v for k, v in group.items() if k != "params"}
            for group in t.optimizers[0].param_groups
        ]
        for t in (trainer, reference)
    )
    assert type(trainer.optimizers[0]) is type(reference.optimizers[0])
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name]), name
    assert module.clip_norm == straight.clip_norm
    saved = torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)["configuration"]
    assert (
        saved == torch.load(tmp_path / "straight" / "last.ckpt", weights_only=True)["configuration"]
    )


def test_a_new_rate_keeps_the_moments(tmp_path):
    """With a rate of zero the momentum of the first step after it is the decayed old one."""
    path = saved_by(tmp_path, rule)
    old = torch.load(path, weights_only=True)["optimizer_states"][0]["state"][0]
    weights = torch.load(path, weights_only=True)["state_dict"]
    kept, trainer = resume(path, of(rule, of(sgd, lr=0.0)), "configured")
    assert torch.equal(kept.net.state_dict()["embed.weight"], weights["net.embed.weight"])
    gradients = seeded(rule)
    gradients.load_state_dict(weights)
    x, y = images()
    loss = gradients.batch_loss((x, y))
    (gradient,) = torch.autograd.grad(loss, [gradients.net.embed.weight])
    buffer = trainer.optimizers[0].state_dict()["state"][0]["momentum_buffer"]
    # Six steps of the same weights; the mean over the epoch's batches is the whole gradient's.
    assert not torch.allclose(buffer, old["momentum_buffer"])
    share = 0.9**STEPS
    fresh = buffer - share * old["momentum_buffer"]
    assert torch.cosine_similarity(fresh.flatten(), gradient.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("case", ["lr", "weight decay", "T_max", "lr below a schedule", "max_lr"])
def test_what_the_checkpoint_has_goes_on_to_the_bit(case, tmp_path):
    before, after, _ = CHANGES[case]
    path = saved_by(tmp_path, before)
    module, _ = resume(path, after, "checkpoint")
    straight, _ = fit(seeded(before), tmp_path / "straight", 3)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name
    saved = torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)["configuration"]
    assert saved == torch.load(path, weights_only=True)["configuration"]


@pytest.mark.parametrize("case", ["optimizer", "a schedule", "no schedule", "clip"])
def test_what_cannot_be_taken_from_a_checkpoint_is_refused(case, tmp_path):
    before, after, says = CHANGES[case]
    path = saved_by(tmp_path, before)
    with pytest.raises(ValueError, match="cannot take from") as raised:
        resume(path, after, "checkpoint")
    assert says in str(raised.value)


def test_what_the_trainer_computes_with_is_compared(tmp_path):
    path = saved_by(tmp_path, rule)
    with pytest.raises(ValueError, match=r"trainer\.precision 32-true there, 64-true here"):
        resume(path, rule, precision="64-true")
    with pytest.raises(ValueError, match=r"trainer\.limit_train_batches .* there, 2 here"):
        resume(path, rule, limit_train_batches=2)


def test_an_unknown_policy_is_refused(tmp_path):
    path = saved_by(tmp_path, rule)
    with pytest.raises(ValueError, match="`on_resume` is 'new', expected one of refuse"):
        resume(path, rule, "new")


def plateau(optimizer, **kwargs):
    from lightning.pytorch.cli import ReduceLROnPlateau

    return ReduceLROnPlateau(optimizer, monitor="val/loss", **kwargs)


def test_a_plateau_keeps_what_it_has_seen(tmp_path):
    path = saved_by(tmp_path, of(rule, sgd, plateau))
    seen = torch.load(path, weights_only=True)["lr_schedulers"][0]
    assert math.isfinite(seen["best"])
    changed = of(rule, sgd, of(plateau, patience=3))
    with pytest.raises(ValueError, match=r"lr_scheduler\.patience 10 there, 3 here"):
        resume(path, changed)
    _, trainer = resume(path, changed, "configured", epochs=2)
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    assert (scheduler.patience, scheduler.best) == (3, seen["best"])


@pytest.mark.parametrize(
    ("epochs", "interval", "steps", "runs"),
    [(2, "step", 12, True), (3, "step", 12, False), (3, "epoch", 3, True), (4, "epoch", 3, False)],
)
def test_a_schedule_that_ends_before_the_run_is_refused_at_its_start(
    epochs, interval, steps, runs, tmp_path
):
    schedule = of(schedules.OneCycleLR, max_lr=0.1, total_steps=steps)
    module = seeded(of(rule, sgd, schedule, lr_interval=interval))
    if runs:
        fit(module, tmp_path, epochs)
        return
    with pytest.raises(ValueError, match=f"OneCycleLR has {steps} steps in all, and the run takes"):
        fit(module, tmp_path, epochs)
    assert not list(tmp_path.iterdir())


def test_a_longer_run_asks_for_a_longer_schedule(tmp_path):
    def cycle(steps):
        return of(rule, sgd, of(schedules.OneCycleLR, max_lr=0.1, total_steps=steps), **ONE)

    path = saved_by(tmp_path, cycle(12))
    with pytest.raises(ValueError, match="has 12 steps in all, and the run takes 18"):
        resume(path, cycle(12))
    with pytest.raises(ValueError, match=r"total_steps 12 there, 18 here"):
        resume(path, cycle(18))
    _, trainer = resume(path, cycle(18), "configured")
    assert trainer.global_step == 18


class Own(BP):
    """Makes its optimizer in its own way."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def test_an_optimizer_of_a_subclass_is_compared_too(tmp_path):
    def make(rate):
        module = Own(ResidualMLP(20, width=8, num_classes=5, depth=1), Classification(5))
        module.rate = rate
        return module

    path = saved_by(tmp_path, of(make, 0.1))
    resume(path, of(make, 0.1))
    with pytest.raises(ValueError, match=r"optimizer\.lr 0\.1 there, 0\.2 here"):
        resume(path, of(make, 0.2))


@pytest.mark.parametrize(
    "scheduler",
    [
        of(schedules.OneCycleLR, max_lr=0.2, total_steps=30),
        of(schedules.OneCycleLR, max_lr=0.2, total_steps=30, cycle_momentum=False),
        of(schedules.CyclicLR, base_lr=0.01, max_lr=0.2),
    ],
)
def test_an_older_checkpoint_of_an_unchanged_cycle_goes_on(scheduler, tmp_path):
    """The state of such a schedule keeps its own rates where the optimizer's was."""
    path = saved_by(tmp_path, of(rule, scheduler=scheduler, **ONE), old=True)
    _, trainer = resume(path, of(rule, scheduler=scheduler, **ONE))
    assert trainer.global_step == 3 * STEPS


def test_an_older_checkpoint_of_another_cycle_is_refused(tmp_path):
    cycle = of(schedules.OneCycleLR, total_steps=30)
    path = saved_by(tmp_path, of(rule, scheduler=of(cycle, max_lr=0.2), **ONE), old=True)
    with pytest.raises(ValueError, match="max_lr"):
        resume(path, of(rule, scheduler=of(cycle, max_lr=0.3), **ONE))


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_weights_of_another_project_are_no_checkpoint_of_a_run(wrapper, tmp_path):
    state = rule().net.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"holds weights that Lightning has not saved"):
        resume(tmp_path / "last.ckpt", rule)
    with pytest.raises(ValueError, match=r"holds weights that Lightning has not saved"):
        BP.load_from_checkpoint(tmp_path / "last.ckpt", net=rule().net, task=Classification(5))
