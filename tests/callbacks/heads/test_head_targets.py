"""What HeadAttribution takes for the target, and for the position that is read."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F

from tests.callbacks.heads.test_head_attribution import (
    Sequences,
    batch,
    measured,
    taken_apart,
)
from tests.inspect.attention import head_nets


def test_positions_without_a_target_are_left_out():
    torch.manual_seed(0)
    module, (x, y) = Sequences(head_nets.nano_gpt()), batch()
    masked = y.clone()
    masked[:, :3] = -100
    found, every = taken_apart(module, (x, masked)), taken_apart(module, (x, y))
    keep = (masked >= 0).flatten()
    torch.testing.assert_close(found.logits, every.logits[keep])
    for name, heads in found.heads.items():
        torch.testing.assert_close(heads, every.heads[name][:, keep])
    with pytest.raises(MisconfigurationException, match="no row of the probe has a target"):
        measured(module, (x, torch.full_like(y, -100)))


def test_targets_of_many_kinds():
    torch.manual_seed(0)
    module, (x, y) = Sequences(head_nets.nano_gpt(), per_position=False), batch(False)
    rows = 0.1 + F.one_hot(y, head_nets.VOCAB).float()
    assert taken_apart(module, (x, y)).target.equal(taken_apart(module, [x, y]).target)
    module.training_step = lambda batch, _: module(
        batch["x"] if isinstance(batch, dict) else batch[0]
    ).sum()
    assert taken_apart(module, {"x": x, "labels": y}).target.equal(y)
    assert taken_apart(module, (x, rows)).target.equal(y)
    for bad in ({"x": x}, (x,)):
        with pytest.raises(MisconfigurationException, match="found no target"):
            taken_apart(module, bad)


def test_labels_that_repeat_the_tokens_mean_the_next_one():
    torch.manual_seed(0)
    module, (x, _) = Sequences(head_nets.nano_gpt()), batch()
    module.training_step = lambda batch, _: module(batch["input_ids"]).sum()
    labels = x.clone()
    labels[:, 3:] = -100  # padding
    found = taken_apart(module, {"input_ids": x, "labels": labels}).target
    assert found.equal(x[:, 1:3].flatten())
    other = labels.clone()
    other[0, 0] = (x[0, 0] + 1) % head_nets.VOCAB  # labels of their own, as of masked tokens
    found = taken_apart(module, {"input_ids": x, "labels": other}).target
    assert found.equal(other[:, :3].flatten())


def test_a_class_token_is_told_from_the_last_position():
    torch.manual_seed(0)

    class First(Sequences):
        def forward(self, x):
            return self.out(self.norm(self.stack(x))[:, 0])

    module, data = First(head_nets.nano_gpt(), norm=nn.LayerNorm(head_nets.WIDTH)), batch(False)
    with pytest.raises(MisconfigurationException, match=r"`position` is -1.*Set `position` to 0"):
        taken_apart(module, data)
    found = taken_apart(module, data, position=0)
    torch.testing.assert_close(found.logits, module(data[0]))
