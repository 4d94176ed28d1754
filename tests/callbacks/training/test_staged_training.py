"""Only the parts of a stage move in it, under any rule; a resumed run goes on in its stage."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_credit.callbacks import PartFreezing, StagedTraining
from lit_credit.rules import BP, DFA, FA
from tests import support
from tests.support import Foreign, fit, same_state

STAGES = [["head"], ["blocks.0"], ["blocks.1.0.weight", "head"]]
MOVED = [{"head.weight", "head.bias"}, {"blocks.0.0.weight", "blocks.0.0.bias"}]
MOVED.append({"blocks.1.0.weight", "head.weight", "head.bias"})


class Watch(Callback):
    """Which parameters moved in each epoch, and how many updates there were."""

    def __init__(self):
        self.moved, self.updates = [], 0

    def values(self, module):
        named = dict(module.named_parameters())
        return {n.partition(".")[2]: p.detach().clone() for n, p in named.items()}

    def on_train_epoch_start(self, trainer, pl_module):
        self.before = self.values(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        now = self.values(pl_module)
        self.moved.append({n for n in now if not torch.equal(now[n], self.before[n])})
        self.updates = trainer.global_step


class Manual(Foreign):
    """Foreign, with manual optimization that leaves gradients of zero."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad(set_to_none=False)
        self.manual_backward(F.cross_entropy(self.model(batch[0]), batch[1]))
        optimizer.step()


@pytest.mark.parametrize("kind", [BP, FA, DFA, Foreign, Manual])
def test_only_the_parts_of_the_stage_move(kind, tmp_path):
    foreign = issubclass(kind, Foreign)
    adam = {"optimizer": lambda p: torch.optim.AdamW(p, weight_decay=0.1)}
    module = kind() if foreign else support.rule(kind, **adam)
    stages = [[f"model.{n}" for n in names] for names in STAGES] if foreign else STAGES
    watch = Watch()
    callbacks = watch, StagedTraining(stages, epochs_per_stage=2)
    trainer = fit(tmp_path, module, *callbacks, logger=False, max_epochs=7)
    assert watch.moved == [MOVED[min(epoch // 2, 2)] for epoch in range(7)]
    # What never learns is not the optimizer's, if it asks.
    (optimizer,) = trainer.optimizers
    assert foreign or sum(len(group["params"]) for group in optimizer.param_groups) == 5
    assert all(p.requires_grad for p in module.parameters())


def test_with_several_updates_a_step(tmp_path):
    watch, module = Watch(), support.rule(BP, updates_per_step=2)
    fit(tmp_path, module, watch, StagedTraining(STAGES), logger=False)
    assert watch.moved == MOVED
    assert watch.updates == 24


@pytest.mark.parametrize("kind", [BP, FA, DFA])
def test_against_a_loop_that_moves_the_stage_alone(kind, tmp_path):
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}
    staged = support.rule(kind, **sgd)
    fit(tmp_path, staged, StagedTraining(STAGES), logger=False)
    twin, loader = support.rule(kind, **sgd), support.train_loader()
    named = dict(twin.net.named_parameters())
    for names in MOVED:
        chosen = [named[name] for name in sorted(names)]
        for batch in loader:
            gradients = torch.autograd.grad(twin.surrogate(batch)[1], chosen)
            for parameter, gradient in zip(chosen, gradients, strict=True):
                parameter.data -= 0.1 * gradient
    for (name, found), expected in zip(staged.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


@pytest.mark.parametrize("saved_at", [6, 8, 10])
def test_a_resumed_run_goes_on_as_it_was(saved_at, tmp_path):
    def run(name, steps, ckpt_path=None):
        module = support.rule(DFA, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
        checkpoint = ModelCheckpoint(
            tmp_path / name, filename="{step}", every_n_train_steps=saved_at, save_top_k=-1
        )
        callbacks = StagedTraining(STAGES, epochs_per_stage=2), checkpoint
        options = {"max_steps": steps, "max_epochs": -1, "enable_checkpointing": True}
        fit(tmp_path / name, module, *callbacks, ckpt_path=ckpt_path, logger=False, **options)
        return module

    whole = run("whole", 19)
    run("cut", 11)
    resumed = run("cut", 19, tmp_path / "cut" / f"step={saved_at}.ckpt")
    assert same_state(whole, resumed)


def test_what_others_have_frozen_stays_frozen(tmp_path):
    watch, module = Watch(), support.rule(BP)
    module.net.head.bias.requires_grad_(False)
    fit(tmp_path, module, watch, StagedTraining(STAGES), logger=False)
    assert watch.moved == [moved - {"head.bias"} for moved in MOVED]
    assert not module.net.head.bias.requires_grad
    freezing = PartFreezing(["blocks.0"])
    with pytest.raises(ValueError, match=r"`stages\[1\]` is \['blocks.0'\], whose parameters are"):
        fit(tmp_path, module, freezing, StagedTraining(STAGES), logger=False)


class Tied(LightningModule):
    """One weight by two names."""

    def __init__(self):
        super().__init__()
        one, two = (torch.nn.Linear(12, 12, bias=False) for _ in range(2))
        two.weight = one.weight
        self.net = torch.nn.Sequential(one, torch.nn.Tanh(), two, torch.nn.Linear(12, 4))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_a_tied_weight_learns_by_either_name(tmp_path):
    watch = Watch()
    stages = StagedTraining([["3"], ["2"]])
    fit(tmp_path, Tied(), watch, stages, loaders=(support.train_loader(), None), logger=False)
    assert watch.moved == [{"3.weight", "3.bias"}, {"0.weight"}, {"0.weight"}]


class Mover(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.current_epoch == 1:
            pl_module.net.head.bias.data += 1e-6


def test_a_part_that_moves_all_the_same_is_an_error(tmp_path):
    module = support.rule(BP)
    with pytest.raises(RuntimeError, match=r"StagedTraining: net\.head\.bias moved, although fro"):
        fit(tmp_path, module, StagedTraining(STAGES), Mover(), logger=False)
    assert all(p.requires_grad for p in module.parameters())


def test_what_cannot_be_staged_is_named(tmp_path):
    for stages, epochs, message in (
        ("head", 1, "`stages` is 'head', expected a list of lists"),
        ([], 1, r"`stages` is \[\]"),
        (["head"], 1, r"`stages` is \['head'\]"),
        ([["head"], []], 1, r"`stages` is \[\['head'\], \[\]\]"),
        ([["head"]], 0, "`epochs_per_stage` is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            StagedTraining(stages, epochs)
    module = support.rule(BP)
    for names, message in (
        (["tail"], r"`stages\[1\]`: 'tail' matches nothing.*head\.weight"),
        (["head", "he*"], r"`stages\[1\]`: 'head' is matched twice"),
        (["embed.2"], r"`stages\[1\]` is embed.2, in which there are no parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, module, StagedTraining([["embed"], names]), logger=False)
        assert all(p.requires_grad for p in module.parameters())
    trainer = support.trainer(tmp_path, logger=False, devices=2)
    with pytest.raises(MisconfigurationException, match="3 stages on 2 devices"):
        StagedTraining(STAGES).setup(trainer, module, "fit")


def test_stages_that_the_run_does_not_reach_are_named(tmp_path):
    module, callback = support.rule(BP), StagedTraining(STAGES, epochs_per_stage=2)
    trainer = support.trainer(tmp_path, logger=False, max_epochs=4)
    with pytest.warns(UserWarning, match="`max_epochs` is 4, but the last of 3 .* begins after 4"):
        callback.setup(trainer, module, "fit")
    callback.setup(support.trainer(tmp_path, logger=False, max_epochs=5), module, "fit")
