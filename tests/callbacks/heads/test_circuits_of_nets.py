"""Circuits of whole nets: against a real forward pass, of several streams, dead, large."""

import logging
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from transformers import LlamaConfig, LlamaModel

from lit_credit.callbacks import CircuitMatching
from lit_credit.callbacks.heads import circuit_matching, circuit_pairs
from lit_credit.callbacks.heads.circuit_pairs import CircuitPairs
from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.models import RotaryTransformer
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.heads.test_circuit_matching import SYMBOLS, WIDTH, measured, rotary_net


def llama():
    config = LlamaConfig(
        vocab_size=SYMBOLS,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_dropout=0.0,
    )
    return LlamaModel(config)


@pytest.mark.parametrize("make", [lambda: RotaryTransformer(SYMBOLS, 32, 2, 4, dropout=0.0), llama])
def test_circuits_at_a_distance_give_the_scores_of_a_real_forward_pass(make):
    torch.manual_seed(0)
    net = make().double().eval()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    layers = read_heads(net)
    distances = [0, 1, 3, 5]
    qk = CircuitPairs(layers, False, distances).qk.dense()  # (D, readers, d, d)
    inputs = {}
    reader = net.get_submodule(layers[1].name)
    hook = reader.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.update(x=args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    with recorded_attention(net) as calls:
        net(torch.arange(9)[None] % SYMBOLS)
    hook.remove()
    (call,) = (c for c in calls if c.module == layers[1].name)
    x, key = inputs["x"][0], call.key.repeat_interleave(4 // call.key.shape[1], 1)
    scores = (call.query @ key.mT)[0] / math.sqrt(8)  # (heads, T, T)
    for place, distance in enumerate(distances):
        for head in range(4):
            ours = torch.stack(
                [x[m] @ qk[place, head] @ x[m - distance] for m in range(distance, 9)]
            )
            theirs = scores[head].diagonal(-distance)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_an_encoder_and_a_decoder_are_two_streams():
    class Translator(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Transformer(16, 2, 2, 2, 32, batch_first=True)

    with pytest.raises(MisconfigurationException, match=r"an encoder and a decoder.*`units`"):
        CircuitMatching().prepare(None, Translator())
    callback = CircuitMatching(units=["decoder.layers.*.self_attn"])
    callback.prepare(None, Translator())
    assert callback.measure(Translator())["z/best"] < 4


def test_dead_heads_are_undefined():
    net = rotary_net()
    for block in net.blocks:
        torch.nn.init.zeros_(block.attention.heads.o.weight)
    values = measured(net, ranks=[3])
    assert all(math.isnan(values[tag]) for tag in ("z/best", "match_rms/R03/best"))
    assert math.isnan(values["z_sqrt_d/best"])


def test_large_vocabularies_are_sampled_from_end_to_end():
    net = RotaryTransformer(100, WIDTH, 2)
    with torch.no_grad():
        q, k = (net.blocks[1].attention.heads.q, net.blocks[1].attention.heads.k)
        v, o = (net.blocks[0].attention.heads.v, net.blocks[0].attention.heads.o)
        for layer in (q, k, v, o):
            layer.weight.copy_(torch.eye(WIDTH))
        net.embed.weight.copy_(torch.nn.functional.normalize(torch.randn(100, WIDTH)))
        net.embed.weight[99] = net.embed.weight[0] * 0.5  # never finds itself
    assert measured(net, n_tokens=100)["mismatch/best"] == pytest.approx(0.01)
    assert measured(net, n_tokens=10)["mismatch/best"] == pytest.approx(0.1)


def test_a_run_draws_its_curves_and_says_what_it_saw(tmp_path, caplog):
    trainer = support.trainer(tmp_path, CircuitMatching(every_n_steps=2), max_epochs=1)
    trainer.fit(support.rule(BP, support.SymbolNet), support.train_loader())
    rows = read_history(tmp_path / "circuit_matching.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4]
    last = rows[-1]["values"]
    assert f"best pair in each: z {last['circuits/z/best']:.2f}" in caplog.text
    assert (tmp_path / "figures" / "circuit_matching.png").is_file()
    assert (tmp_path / "figures" / "circuit_matching_pairs.png").is_file()


KINDS = ("query", "key", "value", "output")


def layers_of(*counts, width=16, size=4):
    torch.manual_seed(0)
    return [
        AttentionHeads(name=f"layer {i}", **{k: torch.randn(count, width, size) for k in KINDS})
        for i, count in enumerate(counts)
    ]


def test_blocks_of_pairs_change_nothing_but_rounding(monkeypatch):
    layers, symbols = layers_of(3, 2, 4, 2), torch.randn(9, 16, dtype=torch.float64)
    whole = CircuitPairs(layers, False, [0, 2]).scores([2, 3], symbols)
    monkeypatch.setattr(circuit_pairs, "_MOST_ENTRIES", 2 * 4 * 4**2 * 2)  # two writers at a time
    found = CircuitPairs(layers, False, [0, 2]).scores([2, 3], symbols)
    allowed = CircuitPairs(layers, False, [0]).allowed
    for tag, pairs in whole.items():
        assert pairs.isnan().equal(~allowed.expand_as(pairs))
        torch.testing.assert_close(found[tag], pairs, equal_nan=True)


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_pairs_within_reach_and_no_others(reach):
    layers = layers_of(3, 2, 4, 2)
    every = CircuitPairs(layers, False, [0]).scores([2], None)
    pairs = CircuitPairs(layers, False, [0], reach)
    layer = pairs.layer
    behind = layer[pairs.readers][:, None] - layer[pairs.writers]
    near = (behind > 0) & (behind <= reach)
    assert pairs.allowed.equal(near)
    assert len(pairs.names) == int(near.sum())
    for tag, scores in pairs.scores([2], None).items():
        expected = torch.where(near, every[tag], torch.nan)
        torch.testing.assert_close(scores, expected, equal_nan=True)


def test_deep_nets_pair_near_layers_and_say_so(monkeypatch, caplog):
    net = RotaryTransformer(SYMBOLS, WIDTH, 5, 2)  # 40 pairs: 16, 12, 8 and 4
    assert "L00H00-L04H00" in measured_names(net)
    for most, reach in ((39, 3), (16, 1), (3, 1), (35, 2)):
        monkeypatch.setattr(circuit_matching, "_MOST_PAIRS", most)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            names = measured_names(net)
        far = max(int(name[8:10]) - int(name[1:3]) for name in names)
        assert far == reach
        (said,) = caplog.messages
        assert f"at most {reach} layers apart, {len(names)} pairs" in said
    assert "L00H00-L04H00" in measured_names(net, reach=4)
    with pytest.raises(ValueError, match="`reach` is 0"):
        CircuitMatching(reach=0)
    with pytest.raises(ValueError, match="`pairs` has 'L00H00-L04H00'"):
        CircuitMatching(reach=3, pairs=["L00H00-L04H00"]).prepare(None, net)


def measured_names(net, **options):
    callback = CircuitMatching(**options)
    callback.prepare(None, net)
    return set(callback._read(net).names)
