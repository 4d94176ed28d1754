"""Diagnostics of nets with sinks, of TransformerLens' layout, with norms and rotations."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import GptOssConfig, GptOssForCausalLM

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    HeadAttribution,
    HeadBehaviour,
    SoftmaxJacobian,
)
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads.circuit_proof import prove_circuits
from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.recording import recorded_attention
from tests.inspect.attention import function_heads as functions
from tests.inspect.attention.head_nets import VOCAB, WIDTH, Stack
from tests.support import quiet_trainer

TOKENS = torch.randint(0, VOCAB, (16, 5), generator=torch.Generator().manual_seed(0))
DATA = [(x, x.sum() % VOCAB) for x in TOKENS]


class Last(LightningModule):
    """Predicts a symbol from the last position."""

    def __init__(self, net, head):
        super().__init__()
        self.net, self.head = net, head

    def forward(self, tokens):
        h = self.net(tokens)
        return self.head(h if isinstance(h, torch.Tensor) else h.logits)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0])[:, -1], batch[1])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def stack(kind):
    net = Stack(kind(), kind())
    net.position = nn.Embedding(32, WIDTH)
    return Last(net, nn.Linear(WIDTH, VOCAB))


def gpt_oss():
    sizes = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "head_dim": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "pad_token_id": 0}
    net = GptOssForCausalLM(GptOssConfig(vocab_size=VOCAB, **sizes, **heads, **experts))
    return Last(net, nn.Identity())


SINKS = {
    "behind": lambda: stack(functions.SinkAttention),
    "before": lambda: stack(functions.SinkBeforeAttention),
    "gpt_oss": gpt_oss,
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def measured(module, diagnostic):
    diagnostic.figure = False
    trainer = quiet_trainer(max_steps=2, callbacks=[diagnostic])
    trainer.fit(module, DataLoader(DATA, 8), DataLoader(DATA, 8))
    return diagnostic.history.rows


def built(make):
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_is_a_key_with_a_share_of_its_own(name):
    rows = measured(built(SINKS[name]), AttentionMaps())
    assert sum(v for k, v in rows[0]["proved"].items() if "sinks" in k) == 2
    module = built(SINKS[name]).eval()
    with torch.no_grad(), recorded_attention(module) as calls:
        module(TOKENS)
    for layer, call in enumerate(calls):
        a = call.weights
        assert a.shape[-2:] == (5, 6)
        sink = a[..., 0] if name == "before" else a[..., -1]
        label = f"model.layers.{layer}.self_attn" if name == "gpt_oss" else f"blocks.{layer}.1"
        for head in range(4):
            seen = rows[0]["values"][f"attention/sink/{label}/H{head:02d}"]
            assert seen == pytest.approx(float(sink[:, head].mean()), rel=1e-4)


def test_no_share_of_sinks_is_logged_without_any():
    rows = measured(built(lambda: stack(functions.CentredAttention)), AttentionMaps())
    assert not [tag for tag in rows[-1]["values"] if "sink" in tag]
    assert not [text for text in rows[0]["proved"] if "sinks" in text]


@pytest.mark.parametrize("name", SINKS)
def test_the_softmax_backward_goes_through_the_sink_too(name):
    rows = measured(built(SINKS[name]), SoftmaxJacobian())
    values = rows[0]["values"]
    heads = [tag.removeprefix("jacobian/r_diag/") for tag in values if "/r_diag/" in tag]
    assert len(heads) == 8
    for head in heads:
        parts = [values[f"jacobian/{part}/{head}"] for part in ("r_diag", "r_off", "r_cross")]
        assert sum(parts) == pytest.approx(1, abs=1e-4)
        assert values[f"jacobian/mean_attention/{head}"] <= 1
    assert sum(v for k, v in rows[0]["proved"].items() if "sinks" in k) == 2


NETS = {
    **SINKS,
    "lens": lambda: Last(functions.lens_net(), nn.Identity()),
    "normed": lambda: stack(functions.GainedAttention),
    "rotated": lambda: stack(functions.NeighboursTurnAttention),
    "norm modules": lambda: stack(functions.NormModulesAttention),
}


@pytest.mark.parametrize("name", NETS)
def test_circuits_and_behaviour_are_measured(name):
    rows = measured(built(NETS[name]), CircuitMatching(ranks=[2]))
    assert math.isfinite(rows[-1]["values"]["circuits/z/best"])
    assert max(v for k, v in rows[0]["proved"].items() if k.startswith("heads as read")) < 0.01
    rows = measured(built(NETS[name]), HeadBehaviour(period=4))
    assert 0 <= rows[-1]["values"]["behaviour/previous_token/best"] <= 1


@pytest.mark.parametrize("name", [name for name in NETS if name != "gpt_oss"])
def test_attribution_of_what_heads_add(name):
    named = {"unembedding": "net.unembed"} if name == "lens" else {}
    rows = measured(built(NETS[name]), HeadAttribution(**named))
    assert any("/margin/" in tag for tag in rows[-1]["values"])


def test_a_doubt_that_no_pass_can_settle_is_refused():
    class Silent(Last):
        training_step = validation_step = None

    module = Silent(functions.lens_net(rotary="half"), nn.Identity())
    layers = read_heads(module, proved_later=True)
    with pytest.raises(MisconfigurationException, match=r"rotary_\w+`, so it may rotate.*no data"):
        prove_circuits(Chunk(module, None), layers, fold_norm=True, no_rows="there are no data")


def test_circuits_follow_the_gains_of_normed_queries():
    module = built(NETS["normed"])
    diagnostic = CircuitMatching(ranks=[2])
    measured(module, diagnostic)
    before = diagnostic._read(module)
    with torch.no_grad():
        module.net.blocks[1][1].gain_q.mul_(torch.tensor([5.0, 1.0, 1.0, 0.1]))
    after = diagnostic._read(module)
    change = after.weight("query", slice(4, 8)) / before.weight("query", slice(4, 8))
    expected = torch.tensor([5.0, 1.0, 1.0, 0.1], dtype=torch.float64).expand_as(change)
    torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-6)
