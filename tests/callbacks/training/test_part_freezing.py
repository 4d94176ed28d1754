"""What is frozen does not move, under any rule; the rest learns; and it can end."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.callbacks import PartFreezing
from lit_credit.rules import BP, DFA, FA
from tests import support
from tests.support import Foreign, fit, same_state

ALL = {"embed", "blocks", "head"}


def snapshot(module):
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def moved(module, before):
    """Parts of the net in which something moved."""
    now = snapshot(module)
    return {name.split(".")[1] for name in now if not torch.equal(now[name], before[name])}


@pytest.mark.parametrize("kind", [BP, FA, DFA, Foreign])
@pytest.mark.parametrize("frozen", [["embed"], ["blocks.*"], ["embed", "head"]])
def test_what_is_frozen_stays_and_the_rest_moves(kind, frozen, tmp_path):
    module = Foreign() if kind is Foreign else support.rule(kind)
    names = [f"model.{name}" for name in frozen] if kind is Foreign else frozen
    before = snapshot(module)
    fit(tmp_path, module, PartFreezing(names), logger=False, max_epochs=1)
    assert moved(module, before) == ALL - {name.split(".")[0] for name in frozen}
    assert all(p.requires_grad for p in module.parameters())


def test_single_parameters_and_weight_decay(tmp_path):
    module = support.rule(FA, optimizer=lambda p: torch.optim.AdamW(p, weight_decay=1.0))
    before = snapshot(module)
    fit(tmp_path, module, PartFreezing(["head.bias"]), logger=False, max_epochs=1)
    now = snapshot(module)
    assert torch.equal(now["net.head.bias"], before["net.head.bias"])
    assert not torch.equal(now["net.head.weight"], before["net.head.weight"])


class Watch(Callback):
    """Which epochs moved the head."""

    def __init__(self):
        self.moved = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.before = next(p.detach().clone() for p in pl_module.net.head.parameters())

    def on_train_epoch_end(self, trainer, pl_module):
        self.moved.append(not torch.equal(self.before, next(pl_module.net.head.parameters())))


@pytest.mark.parametrize("rule", [BP, DFA])
def test_parts_learn_from_the_epoch_on_in_which_they_are_unfrozen(rule, tmp_path):
    watch = Watch()
    module = support.rule(rule)
    fit(tmp_path, module, PartFreezing(["head"], unfreeze_epoch=2), watch, logger=False)
    assert watch.moved == [False, False, True]


@pytest.mark.parametrize("saved_at", [6, 8, 10])
def test_a_resumed_run_goes_on_as_it_was(saved_at, tmp_path):
    def run(name, steps, ckpt_path=None):
        module = support.rule(DFA)
        checkpoint = ModelCheckpoint(
            tmp_path / name, filename="{step}", every_n_train_steps=saved_at, save_top_k=-1
        )
        callbacks = PartFreezing(["head"], unfreeze_epoch=2), checkpoint
        options = {"max_steps": steps, "max_epochs": -1, "enable_checkpointing": True}
        fit(tmp_path / name, module, *callbacks, ckpt_path=ckpt_path, logger=False, **options)
        return module

    whole = run("whole", 14)
    run("cut", 11)
    resumed = run("cut", 14, tmp_path / "cut" / f"step={saved_at}.ckpt")
    assert same_state(whole, resumed)


class Mover(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        pl_module.net.head.bias.data += 1e-6


def test_a_part_that_moves_all_the_same_is_an_error(tmp_path):
    module = support.rule(BP)
    with pytest.raises(RuntimeError, match=r"net\.head\.bias moved, although frozen"):
        fit(tmp_path, module, PartFreezing(["head"]), Mover(), logger=False)
    assert all(p.requires_grad for p in module.parameters())


def test_what_cannot_be_frozen_is_named(tmp_path):
    for arguments, message in (
        ({"frozen": "head"}, "`frozen` is 'head', expected a list"),
        ({"frozen": []}, r"`frozen` is \[\]"),
        ({"frozen": ["head"], "unfreeze_epoch": 0}, "`unfreeze_epoch` is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PartFreezing(**arguments)
    module = support.rule(BP)
    for frozen, message in (
        (["tail"], r"`frozen`: 'tail' matches nothing.*head\.weight"),
        (["embed.2"], r"`frozen` is embed.2, in which there are no parameters"),
        (["*"], "leaves no parameter to learn"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, module, PartFreezing(frozen), logger=False)
    trainer = support.trainer(tmp_path, logger=False, devices=2)
    with pytest.raises(MisconfigurationException, match="on 2 devices"):
        PartFreezing(["head"], unfreeze_epoch=1).setup(trainer, module, "fit")


def test_what_has_diverged_does_not_move(tmp_path):
    module = support.rule(BP)
    torch.nn.init.constant_(module.net.head.bias, torch.nan)
    fit(tmp_path, module, PartFreezing(["head"]), logger=False, max_epochs=1)
    assert module.net.head.bias.isnan().all()
