"""Which attention is looked at, what is left behind, and what is no softmax."""

import csv
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import AttentionMaps, SoftmaxJacobian
from lit_credit.models import GPT
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.tasks import NextToken
from tests import support
from tests.callbacks import twin
from tests.callbacks.heads.attention_nets import (
    Encoder,
    H,
    batch,
    loader,
    make,
)


def test_a_run_leaves_history_table_figure_and_reading(tmp_path, caplog):
    callbacks = SoftmaxJacobian(n_samples=7), AttentionMaps(n_samples=7, draw_each=True)
    trainer = support.trainer(tmp_path, *callbacks, max_epochs=2)
    caplog.set_level("INFO")
    trainer.fit(Encoder(), loader())
    (row, *_) = rows = read_history(tmp_path / "softmax_jacobian.jsonl")
    assert [row["step"] for row in rows] == [0, 4, 8]
    with (tmp_path / "softmax_jacobian.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 2 * H
    first = dict(table[0])
    assert [first.pop(key) for key in ("module", "head", "step")] == [
        "encoder.layers.0.self_attn",
        "H00",
        "0",
    ]
    for column, cell in first.items():
        value = row["values"][f"jacobian/{column}/encoder.layers.0.self_attn/H00"]
        assert float(cell) == pytest.approx(value, rel=1e-6)
    assert {f.name for f in (tmp_path / "figures").iterdir()} == {
        "softmax_jacobian.png",
        "attention_maps.png",
    }
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("jacobian: ")]
    assert len(said) == 1
    low = min(float(line["r_off"]) for line in table if line["step"] == "8")
    assert f"{low:.3g} to" in said[0]
    trainer.logger.experiment.flush()
    events = support.events(tmp_path)
    assert [e.step for e in events.Images("attention/figure")] == [0, 4, 8]
    assert [e.step for e in events.Images("jacobian/figure")] == [8]
    (text,) = events.Tensors("jacobian/reading/text_summary")
    assert text.tensor_proto.string_val[0].decode() in said[0]


# Which attention


def test_units_choose_attention_and_a_wrong_name_lists_what_was_seen():
    module, data = make(BP), batch()
    for units in (["blocks.1.attention"], ["net.blocks.1.*"], ["blocks.[1-9].attention"]):
        values = twin.measured(SoftmaxJacobian(units=units), module, data)
        assert {tag.split("/")[1] for tag in values} == {"blocks.1.attention"}
    with pytest.raises(ValueError, match=r"`units`: 'head' matches nothing.*blocks\.0\.attention"):
        twin.measured(SoftmaxJacobian(units=["head"]), module, data)


class Twice(Encoder):
    """One attention for both layers."""

    def __init__(self):
        super().__init__()
        self.encoder.layers[1] = self.encoder.layers[0]


@pytest.mark.parametrize("kind", [SoftmaxJacobian, AttentionMaps])
def test_a_module_that_runs_twice_has_two_names(kind):
    values = twin.measured(kind(), Twice(), batch())
    found = sorted({tag.split("/")[1] for tag in values})
    assert found == ["encoder.layers.0.self_attn", "encoder.layers.0.self_attn-1"]
    one, other = (values[f"entropy/{name}/H00"] for name in found)
    assert one != other


class Bare(Encoder):
    def training_step(self, data, batch_idx):
        return F.cross_entropy(self.head(data[0].mean(1)), data[1])


@pytest.mark.parametrize("kind", [SoftmaxJacobian, AttentionMaps])
def test_no_attention_is_an_error_before_the_first_step(kind, tmp_path):
    module = Bare()
    weight = module.head.weight.detach().clone()
    with pytest.raises(MisconfigurationException, match=r"no attention was seen.*of Bare"):
        support.trainer(tmp_path, kind(), logger=False).fit(module, loader())
    assert torch.equal(module.head.weight, weight)


class Sigmoid(nn.Module):
    """Attention whose rows are no distribution, and says so by its output alone."""

    returns_attention = True

    def forward(self, scores, allowed=None):
        weights = scores.sigmoid()
        # As chance may have it, the first sample's rows sum to 1.
        return torch.cat([weights[:1].softmax(-1), weights[1:]])


class Own(Encoder):
    """The encoder behind an attention of another kind."""

    def __init__(self):
        super().__init__()
        self.weigh = Sigmoid()

    def training_step(self, data, batch_idx):
        x, y = data
        weights = self.weigh((x @ x.transpose(1, 2))[:, None] * self.head.weight.mean())[:, 0]
        return F.cross_entropy(self.head(self.encoder(weights @ x).mean(1)), y)


def test_what_is_no_softmax_is_undefined_and_the_others_are_not(tmp_path):
    module, callback = Own(), SoftmaxJacobian()
    values = twin.measured(callback, module, batch())
    sigmoid = {tag: value for tag, value in values.items() if "/weigh/" in tag}
    assert len(sigmoid) == 10
    assert all(map(math.isnan, sigmoid.values()))
    assert all(math.isfinite(v) for tag, v in values.items() if tag not in sigmoid)
    tagged = {f"jacobian/{tag}": value for tag, value in values.items()}
    row = {"step": 3, "epoch": 1, "name": callback.name, "values": tagged}
    text = callback.reading([row], "jacobian")
    assert "over 4 heads (1 more is undefined)" in text
    assert callback.draw([row], "jacobian") is not None
    maps = AttentionMaps()
    assert math.isnan(twin.measured(maps, module, batch())["entropy/weigh/H00"])
    assert maps.draw([row], "attention") is not None
    only = {tag: value for tag, value in tagged.items() if "/weigh/" in tag}
    assert "undefined in all 1 heads" in callback.reading([{**row, "values": only}], "jacobian")


def test_kinds_of_attention_share_their_tags():
    class Part(Own):
        def __init__(self):
            super().__init__()
            self.weigh = nn.Sequential(self.weigh)

    assert {tag.split("/")[1] for tag in twin.measured(AttentionMaps(), Part(), batch())} == {
        "weigh",
        "encoder.layers.0.self_attn",
        "encoder.layers.1.self_attn",
    }


@pytest.mark.parametrize("backward", ["full", "diagonal", "ste"])
def test_our_net_is_seen_whatever_its_attention_does_in_backward(backward):
    net = GPT(5, block_size=6, depth=2, heads=2, width=8, attention_backward=backward)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (3, 7), generator=generator)
    values = twin.measured(SoftmaxJacobian(), BP(net, NextToken()), (tokens[:, :-1], tokens[:, 1:]))
    names = sorted({tag.split("/")[1] for tag in values})
    assert names == ["blocks.0.attention.heads", "blocks.1.attention.heads"]
    assert all(map(math.isfinite, values.values()))
    for name in names:
        parts = [values[f"r_{part}/{name}/H00"] for part in ("diag", "off", "cross")]
        assert sum(parts) == pytest.approx(1)
