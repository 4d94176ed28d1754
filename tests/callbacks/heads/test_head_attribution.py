"""What heads add to the logits, against nets from which they are taken out."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import HeadAttribution
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads.head_logits import head_logits
from lit_credit.models import GPT
from lit_credit.rules import BP, FA
from lit_credit.studies.ngram import AttentionOnly
from lit_credit.tasks import Classification, NextToken
from tests import support
from tests.callbacks.heads.own_attention import (
    ExplicitAttention,
    OwnAttention,
    SelfAttention,
    Several,
)
from tests.inspect.attention import head_nets

N, T = 7, 5


class Sequences(LightningModule):
    """A foreign net whose attention is of a given make, and whose last layer is one."""

    def __init__(self, stack, per_position=True, norm=None):
        super().__init__()
        self.stack = stack
        self.norm = norm or nn.Identity()
        self.out = nn.Linear(head_nets.WIDTH, head_nets.VOCAB, bias=False)
        self.per_position = per_position

    def forward(self, x):
        h = self.norm(self.stack(x))
        return self.out(h if self.per_position else h[:, -1])

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        return F.cross_entropy(logits.flatten(0, -2), batch[1].flatten())


def batch(per_position=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(head_nets.VOCAB, (N, T), generator=generator)
    y = torch.randint(head_nets.VOCAB, (N, T) if per_position else (N,), generator=generator)
    return x, y


def taken_apart(module, data, units=None, out="out", position=-1):
    module.eval()
    found = head_logits(Chunk(module, data), units, out, position)
    heads = {name: found.read(added) for name, added in found.added()}
    return SimpleNamespace(heads=heads, logits=found.logits, target=found.target)


MAKES = {
    "fused": lambda: head_nets.Stack(head_nets.FusedAttention()),
    "shared keys": lambda: head_nets.shared_keys(),
    "rotary": lambda: head_nets.Stack(head_nets.RotaryAttention()),
    "torch": lambda: head_nets.Stack(SelfAttention()),
    "torch, several times": lambda: head_nets.Stack(Several(SelfAttention())),
    "explicit softmax": lambda: head_nets.Stack(ExplicitAttention(head_nets.WIDTH, 4)),
}


def output_of(attention):
    """The Linear whose columns are the heads."""
    names = ("c_proj", "o_proj", "to_out", "out_proj", "o")
    found = next(getattr(attention, name) for name in names if hasattr(attention, name))
    return found[0] if isinstance(found, nn.Sequential) else found


def without_head(attention, head, heads, run):
    """What ``run()`` returns while a head adds nothing."""
    weight = output_of(attention).weight
    along = 0 if type(output_of(attention)).__name__ == "Conv1D" else 1  # Hugging Face's GPT-2
    size = weight.shape[along] // heads
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.narrow(along, head * size, size).zero_()
        found = run()
        weight.copy_(kept)
    return found


@pytest.mark.parametrize("per_position", [True, False])
@pytest.mark.parametrize("make", MAKES)
def test_a_head_of_the_last_layer_is_worth_what_is_missing_without_it(make, per_position):
    torch.manual_seed(0)
    module, data = Sequences(MAKES[make](), per_position), batch(per_position)
    found = taken_apart(module, data)

    def run():
        return module(data[0]).detach().flatten(0, -2)

    torch.testing.assert_close(found.logits, run())
    assert found.target.tolist() == data[1].flatten().tolist()
    ((name, heads),) = found.heads.items()
    for h in range(4):
        missing = run() - without_head(module.get_submodule(name), h, 4, run)
        torch.testing.assert_close(heads[h], missing, rtol=1e-4, atol=1e-5)


class HuggingFace(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = head_nets.gpt2()

    def forward(self, x):
        return self.model(x).logits

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]).flatten(0, 1), batch[1].flatten())


@pytest.mark.parametrize("make", [lambda: BP(head_nets.our_gpt(), NextToken()), HuggingFace])
def test_heads_of_every_layer_pass_the_final_norm_with_its_scale_frozen(make):
    torch.manual_seed(0)
    module, data = make().eval(), batch()
    if isinstance(module, BP):
        norm, out = module.net.norm, "net.head"
    else:
        norm, out = module.model.transformer.ln_f, "model.lm_head"
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    head = module.get_submodule(out)
    found = taken_apart(module, data, out=out)
    assert len(found.heads) == 2
    seen = {}
    hooks = [norm.register_forward_pre_hook(lambda _, args: seen.update(stream=args[0].detach()))]
    for name in found.heads:
        hooks.append(
            module.get_submodule(name).register_forward_pre_hook(
                lambda _, args, kwargs, name=name: seen.update({name: (args, kwargs)}),
                with_kwargs=True,
            )
        )
    logits = module(data[0]).detach()
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found.logits, logits.flatten(0, 1))
    scale = (seen["stream"].var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    for name, heads in found.heads.items():
        attention = module.get_submodule(name)
        args, kwargs = seen[name]

        def run(attention=attention, args=args, kwargs=kwargs):
            output = attention(*args, **kwargs)
            return (output[0] if isinstance(output, tuple) else output).detach()

        for h in range(4):
            added = run() - without_head(attention, h, 4, run)
            normed = norm.weight.detach() * (added - added.mean(-1, keepdim=True)) / scale
            expected = (normed @ head.weight.detach().mT).flatten(0, 1)
            torch.testing.assert_close(heads[h], expected, rtol=1e-4, atol=1e-5)


def measured(module, data, **options):
    callback = HeadAttribution(**options)
    module.eval()
    callback.prepare(support.trainer(None, logger=False), module)
    return callback.measure(module, [Chunk(module, data)]), callback


def test_numbers_against_loops():
    torch.manual_seed(0)
    module, data = Sequences(head_nets.nano_gpt()), batch()
    nn.init.normal_(module.out.weight)
    values, callback = measured(module, data)
    found = taken_apart(module, data)
    labels = [f"stack.blocks.{i}.1/H{h:02d}" for i in range(2) for h in range(4)]
    parts = dict(zip(labels, torch.cat(list(found.heads.values())), strict=True))
    parts["heads"] = sum(parts.values())
    parts["rest"], parts["group"] = found.logits - parts["heads"], found.logits
    right = {}
    for name, part in parts.items():
        margins = []
        for m, y in enumerate(data[1].flatten().tolist()):
            row = part[m].tolist()
            margins.append(row[y] - max(v for i, v in enumerate(row) if i != y))
        right[name] = [v > 0 for v in margins]
        assert values[f"margin/{name}"] == pytest.approx(sum(margins) / len(margins), rel=1e-4)
        assert values[f"accuracy/{name}"] == pytest.approx(sum(right[name]) / len(margins))
    solo = list(zip(*(right[name] for name in labels), strict=True))
    assert values["all_right"] == sum(map(all, solo)) / len(solo)
    assert values["none_right"] == pytest.approx(sum(not any(s) for s in solo) / len(solo))
    assert 0 < values["none_right"] < 1
    assert len(values) == 2 * 11 + 2
    assert callback._margins.shape == (11, N * T)


def test_rounding_is_no_choice_where_heads_are_all_there_is():
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Embedding(head_nets.VOCAB, head_nets.WIDTH), SelfAttention())
    nn.init.zeros_(stack[1].out_proj.bias)
    values, _ = measured(Sequences(stack), batch())
    assert values["margin/rest"] == values["accuracy/rest"] == 0
    assert values["accuracy/heads"] == values["accuracy/group"] > 0


def test_heads_are_those_of_feedback_alignment_too():
    torch.manual_seed(0)
    net, data = GPT(head_nets.VOCAB, T, 1, 2, head_nets.WIDTH), batch()
    plain = taken_apart(BP(net, NextToken()), data, out="net.head")
    fed = taken_apart(FA(net, NextToken()), data, out="net.head")
    for name, heads in plain.heads.items():
        torch.testing.assert_close(heads, fed.heads[name])


def test_heads_that_are_modules_are_worth_what_stacked_ones_are():
    found = []
    for separate in (False, True):
        torch.manual_seed(0)
        net = AttentionOnly(head_nets.VOCAB, 4, heads=3, separate_heads=separate)
        x = torch.randint(head_nets.VOCAB, (6, 2))
        module = BP(net, Classification(head_nets.VOCAB))
        found.append(measured(module, (x, x[:, 0]))[0])
    for (tag, value), expected in zip(found[1].items(), found[0].values(), strict=True):
        assert value == pytest.approx(expected, abs=1e-5), tag
    assert {"margin/blocks.0.attention/H02"} <= set(found[0])
    assert {"margin/blocks.0.attention.2/H00", "margin/group"} <= set(found[1])


def test_what_does_not_belong_together_is_named():
    torch.manual_seed(0)
    data = batch()
    module = Sequences(head_nets.nano_gpt())
    module.training_step = lambda batch, _: module.stack(batch[0]).sum()
    with pytest.raises(MisconfigurationException, match="'out' did not run"):
        measured(module, data)
    with pytest.raises(ValueError, match=r"`unembedding`: 'tail' matches nothing.*out"):
        measured(module, data, unembedding="tail")
    narrow = Sequences(head_nets.nano_gpt(), norm=nn.Linear(head_nets.WIDTH, 3))
    narrow.out = nn.Linear(3, head_nets.VOCAB)
    with pytest.raises(MisconfigurationException, match=r"add \(4, 7, 5, 16\).*another stream"):
        measured(narrow, data)

    own = Sequences(head_nets.Stack(OwnAttention()))
    with pytest.raises(MisconfigurationException, match=r"'stack\.blocks\.0\.1' add does not show"):
        measured(own, data)

    tied = Sequences(head_nets.Stack(*[OwnAttention()] * 2))
    with pytest.raises(MisconfigurationException, match="computed attention 2 times"):
        measured(tied, data)

    class Odd(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) ** 2

    odd = Sequences(head_nets.nano_gpt(), norm=Odd(head_nets.WIDTH))
    with pytest.raises(MisconfigurationException, match=r"'norm' \(Odd\).*is no LayerNorm"):
        measured(odd, data)


def test_a_run_draws_its_heads_and_an_example(tmp_path):
    callback = HeadAttribution(n_samples=9)
    support.fit(tmp_path, support.rule(BP, support.SymbolNet), callback, max_epochs=1)
    for name in ("head_attribution", "head_attribution_example"):
        assert (tmp_path / "figures" / f"{name}.png").is_file()


def test_the_correct_symbol_of_the_example_is_shown(monkeypatch):
    monkeypatch.setattr("lit_credit.callbacks.heads.head_attribution._MOST_SYMBOLS", 2)
    module = Sequences(head_nets.nano_gpt(), norm=nn.LayerNorm(head_nets.WIDTH))
    x, y = batch()
    with torch.no_grad():
        y[0] = module.out(module.norm(module.stack(x)))[0, -1].argmin()
    _, callback = measured(module, (x, y))
    assert [name for name in callback._example.rows if name.endswith("*")] == [f"{y[0, -1]}*"]
    assert len(callback._example.rows) == 2


def test_of_a_net_that_diverged_nothing_is_right_or_wrong():
    module = Sequences(head_nets.nano_gpt())
    nn.init.constant_(module.out.weight, torch.nan)
    values, _ = measured(module, batch())
    assert all(map(math.isnan, values.values()))


def test_a_net_in_half_precision():
    torch.manual_seed(0)
    attention = SelfAttention()
    module = Sequences(head_nets.Stack(attention))
    values, _ = measured(module, batch())
    halved, _ = measured(module.bfloat16(), batch())
    assert halved == pytest.approx(values, abs=0.2)
