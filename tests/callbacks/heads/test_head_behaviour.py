"""Scores of nets whose heads are known, and of others against a loop."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from lit_credit.callbacks import HeadBehaviour
from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.models import GPT
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.tasks import NextToken
from tests import support
from tests.callbacks.twin import measured

V, PERIOD, LENGTH = 12, 5, 10


class Matcher(nn.Module):
    """A (N, 3, T, T) from the tokens alone: to the token before, by induction, to a duplicate."""

    returns_attention = True

    def forward(self, scores, allowed=None):
        tokens = scores[:, 0, :, 0].tolist()
        a = torch.zeros_like(scores)
        for i, sequence in enumerate(tokens):
            for t in range(len(sequence)):
                seen = [s for s in range(t) if sequence[s] == sequence[t]]
                a[i, 0, t, max(t - 1, 0)] = 1
                a[i, 1, t, seen[-1] + 1 if seen else t] = 1
                a[i, 2, t, seen[-1] if seen else t] = 1
        return a


class Known(LightningModule):
    """Heads that do what they are called, in front of a weight to train."""

    def __init__(self):
        seed_everything(0, verbose=False)
        super().__init__()
        self.token = nn.Embedding(V, V)
        self.attend = nn.Sequential(Matcher())

    def forward(self, tokens):
        scores = tokens[:, None, :, None].expand(-1, 3, -1, tokens.shape[1]).float()
        return self.attend(scores)[:, 1] @ self.token(tokens)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_heads_of_known_behaviour_score_one_and_the_others_zero():
    values = measured(HeadBehaviour(period=PERIOD), Known(), None)
    for index, score in enumerate(("previous_token", "induction", "duplicate_token")):
        for head in range(3):
            assert values[f"{score}/attend/H{head:02d}"] == (1.0 if head == index else 0.0)
        assert values[f"{score}/best"] == 1.0
    assert len(values) == 12


def gpt(**options):
    seed_everything(1, verbose=False)
    net = GPT(V, block_size=LENGTH, depth=2, heads=2, width=8, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return BP(net, NextToken())


def test_a_net_against_a_loop():
    module, callback = gpt(), HeadBehaviour(period=PERIOD, n_samples=3)
    values = measured(callback, module, None)
    tokens = callback._tokens
    with torch.no_grad(), recorded_attention(module) as calls:
        module(tokens)
    assert tokens.shape == (3, LENGTH)
    best = {"previous_token": 0.0, "induction": 0.0, "duplicate_token": 0.0}
    for layer, call in enumerate(calls):
        for head in range(2):
            seen = {score: [] for score in best}
            for a in call.weights[:, head].tolist():
                for t in range(LENGTH):
                    if t >= 1:
                        seen["previous_token"].append(a[t][t - 1])
                    if t >= PERIOD:
                        seen["induction"].append(a[t][t - PERIOD + 1])
                        seen["duplicate_token"].append(a[t][t - PERIOD])
            for score, numbers in seen.items():
                expected = sum(numbers) / len(numbers)
                best[score] = max(best[score], expected)
                tag = f"{score}/blocks.{layer}.attention.heads/H{head:02d}"
                assert values[tag] == pytest.approx(expected)
    for score, expected in best.items():
        assert values[f"{score}/best"] == pytest.approx(expected)


def test_sequences_are_the_same_in_every_run_and_those_of_the_seed():
    drawn = []
    for seed in (0, 0, 1):
        callback = HeadBehaviour(period=PERIOD, seed=seed)
        torch.rand(3)
        measured(callback, gpt(), None)
        drawn.append(callback._tokens)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_units_choose_and_sigmoid_attention_is_undefined():
    values = measured(HeadBehaviour(period=PERIOD, units=["blocks.1.*.*"]), gpt(), None)
    assert {t.split("/")[1] for t in values} == {"blocks.1.attention.heads", "best"}
    values = measured(HeadBehaviour(period=PERIOD), gpt(attention="sigmoid"), None)
    assert len(values) == 15
    assert all(map(math.isnan, values.values()))


class HuggingFace(LightningModule):
    def __init__(self):
        super().__init__()
        size = {"vocab_size": V, "n_positions": LENGTH, "n_embd": 8, "n_layer": 1, "n_head": 2}
        self.model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))

    def forward(self, labels=None, *, input_ids):
        return self.model(input_ids=input_ids)


def test_tokens_may_go_to_an_argument_by_name():
    callback = HeadBehaviour(period=PERIOD, input_name="input_ids")
    values = measured(callback, HuggingFace(), None)
    assert {t.split("/")[1] for t in values} == {"model.transformer.h.0.attn", "best"}
    with pytest.raises(MisconfigurationException, match=r"HuggingFace\(tokens\).*`input_name`"):
        measured(HeadBehaviour(period=PERIOD), HuggingFace(), None)


# A run


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            yield torch.randint(V, (LENGTH + 1,), generator=generator)


def test_it_needs_no_data_and_keeps_none(tmp_path):
    """Of a stream without validation data there is no probe."""
    callback = HeadBehaviour(period=PERIOD)
    loader = torch.utils.data.DataLoader(Stream(), batch_size=2)
    support.trainer(tmp_path, callback, logger=False, max_epochs=2).fit(Known(), loader)
    rows = read_history(tmp_path / "head_behaviour.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[-1]["values"]["behaviour/induction/best"] == 1.0
    assert not any(isinstance(value, torch.Tensor) for value in callback.state_dict().values())


def test_the_figure_shows_the_last_measurement():
    values = {"behaviour/induction/best": 0.5}
    for score in ("previous_token", "induction", "duplicate_token"):
        for head in range(2):
            values[f"behaviour/{score}/attend/H{head:02d}"] = head / 2
    old = {"step": 0, "epoch": 0, "name": "", "values": dict.fromkeys(values, 0.9)}
    row = {"step": 7, "epoch": 1, "name": "", "values": values}
    figure = HeadBehaviour().draw([old, row], "behaviour")
    panels = [ax for ax in figure.axes if ax.texts]
    assert [[text.get_text() for text in ax.texts] for ax in panels] == [["0.00", "0.50"]] * 3
    assert "step 7" in figure.get_suptitle()


# What is missing


@pytest.mark.parametrize("argument", ["period", "repeats", "vocab_size"])
def test_arguments_are_checked(argument):
    with pytest.raises(ValueError, match=f"`{argument}` is 1, expected at least 2"):
        HeadBehaviour(**{argument: 1})


class Blind(LightningModule):
    def forward(self, x):
        return x


class Prefixed(Known):
    def forward(self, tokens):
        return super().forward(F.pad(tokens, (1, 0)))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (gpt, {"period": 6}, "of shape .16, 12., and it failed: ValueError: .*block_size.*period"),
        (gpt, {"period": 5, "vocab_size": 99}, "from 0 to 94, .*IndexError: .*`vocab_size`"),
        (Blind, {}, "needs an nn.Embedding of tokens, which Blind .* Set `vocab_size`"),
        (Blind, {"vocab_size": 99}, "no attention was seen"),
        (Prefixed, {"period": 5}, r"\(16, 3, 11, 11\), not \(N, H, 10, 10\).*`units`"),
    ],
)
def test_what_is_missing_is_named(make, options, message):
    with pytest.raises(MisconfigurationException, match=f"(?s){message}"):
        measured(HeadBehaviour(**options), make(), None)


def test_a_block_longer_than_the_alphabet_is_refused():
    with pytest.raises(ValueError, match=r"`period` is 16, .* `vocab_size` of them, 12"):
        measured(HeadBehaviour(), gpt(), None)
