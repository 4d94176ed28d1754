"""Feedback of layers that are no Linear and compute the same, and GPT-2 made of them."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from lit_credit.callbacks import WeightAlignment
from lit_credit.datamodules import TensorLoader
from lit_credit.feedback import add_feedback, exact_backward, feedback_layers, redraw_feedback
from lit_credit.models import GPT
from lit_credit.rules import FA, BlockFA
from lit_credit.tasks import NextToken
from tests.support import quiet_trainer

TOKENS = torch.randint(0, 10, (8, 6), generator=torch.Generator().manual_seed(0))


def gpt2():
    torch.manual_seed(0)
    symbols = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    sizes = {"vocab_size": 10, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, **symbols, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return GPT2LMHeadModel(config)


def of_linears(net):
    """The same net with an nn.Linear for every Conv1D."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                linear = nn.Linear(*child.weight.shape)
                linear.weight = nn.Parameter(child.weight.detach().T.clone())
                linear.bias = child.bias
                setattr(parent, name, linear)
    return net


class Logits(nn.Module):
    """GPT-2 as a net of tokens to logits."""

    def __init__(self):
        super().__init__()
        self.gpt = gpt2()

    def forward(self, tokens):
        return self.gpt(tokens, use_cache=False).logits


def gradients(net):
    loss = net(TOKENS, labels=TOKENS, use_cache=False).loss
    names, parameters = zip(*net.named_parameters(), strict=True)
    return loss, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("distribution", ["normal", "xavier", "weight", "weight_std", "orthogonal"])
@pytest.mark.parametrize("sign", ["random", "weight"])
def test_gpt2_learns_as_the_same_net_of_linears(distribution, sign):
    if (distribution, sign) == ("weight", "weight"):
        distribution = "uniform"
    plain = gpt2().double()
    options = {"distribution": distribution, "sign": sign, "seed": 3}
    net, twin = (add_feedback(n, **options) for n in (copy.deepcopy(plain), of_linears(plain)))
    transposed = {name for name, layer in net.named_modules() if isinstance(layer, Conv1D)}
    assert len(transposed) == 8
    pairs = feedback_layers(net)
    for name, pair in feedback_layers(twin).items():
        mine = pairs[name].feedback
        torch.testing.assert_close(mine.T if name in transposed else mine, pair.feedback)
        assert pairs[name].weight.shape == mine.shape
    (loss, mine), (expected, theirs) = gradients(net), gradients(twin)
    torch.testing.assert_close(loss, expected)
    for name, gradient in theirs.items():
        turned = mine[name].T if name.removesuffix(".weight") in transposed else mine[name]
        assert (turned - gradient).norm() <= 1e-9 * gradient.norm()


def test_forward_and_exact_backward_are_those_of_the_plain_net():
    plain = gpt2()
    net = add_feedback(copy.deepcopy(plain))
    loss, true = gradients(plain)
    mine, random = gradients(net)
    assert torch.equal(mine, loss)
    assert not torch.allclose(random["transformer.wpe.weight"], true["transformer.wpe.weight"])
    with exact_backward(net):
        for name, gradient in gradients(net)[1].items():
            assert torch.equal(gradient, true[name])


def test_copies_and_files_keep_the_feedback():
    layer = add_feedback(nn.Sequential(Conv1D(5, 3)), sign="weight")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other[0]) is type(layer[0])
        assert torch.equal(other[0].feedback, layer[0].feedback)
    before = layer[0].feedback.clone()
    redraw_feedback(layer, 0)
    assert torch.equal(layer[0].feedback, before)
    redraw_feedback(layer, 1)
    assert layer[0].feedback.shape == (3, 5)
    assert not torch.equal(layer[0].feedback, before)


class OwnAffine(nn.Module):
    """The weight of a Linear, in no Linear and without a bias."""

    def __init__(self, rows, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns))

    def forward(self, x):
        return F.linear(x, self.weight)


class CastLinear(nn.Linear):
    """Computes as a Linear does, by a forward of its own."""

    def forward(self, input):
        return F.linear(input, self.weight.to(input.dtype), self.bias)


class Adapted(nn.Module):
    """A LoRA wrapper around a layer."""

    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(4, 2, False), nn.Linear(2, 4, False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: OwnAffine(4, 4), [""]),
        (lambda: CastLinear(4, 4), [""]),
        (lambda: Adapted(Conv1D(4, 4)), ["base", "down", "up"]),
    ],
)
def test_layers_that_compute_the_same(make, names):
    layer = add_feedback(make(), distribution="weight")
    plain = copy.deepcopy(layer)
    assert list(feedback_layers(layer)) == names
    inputs = [torch.ones(2, 3, 4, requires_grad=True) for _ in range(2)]
    layer(inputs[0]).square().sum().backward()
    with exact_backward(plain):
        plain(inputs[1]).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for pair in feedback_layers(layer).values():
        pair.feedback.zero_()
    x = torch.ones(2, 3, 4, requires_grad=True)
    layer(x).sum().backward()
    assert not x.grad.any()


def test_a_layer_with_a_low_rank_term_of_its_own_is_refused():
    class Merged(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.lora = nn.Parameter(torch.zeros(4, 4))

        def forward(self, x):
            return F.linear(x, self.weight + self.lora, self.bias)

    with pytest.raises(ValueError, match="Merged: its forward is its own"):
        add_feedback(nn.Sequential(Merged()))


def rule(kind=FA, **options):
    torch.manual_seed(0)
    return kind(Logits(), NextToken(), feedback_seed=0, **options)


def data():
    return TensorLoader((TOKENS[:, :-1], TOKENS[:, 1:]), batch_size=4, seed=0)


@pytest.mark.parametrize("options", [{}, {"feedback": "weight_std", "feedback_sign": "weight"}])
def test_gpt2_trains_resumes_and_shows_its_angles(tmp_path, options):
    watched = WeightAlignment()
    trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=2, callbacks=[watched])
    whole = rule(**options)
    trainer.fit(whole, data())
    tags = watched.history.rows[-1]["values"]
    assert "weight/angle/gpt.transformer.h.0.attn.c_attn" in tags
    half = rule(**options)
    first = quiet_trainer(max_epochs=1)
    first.fit(half, data())
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = rule(**options)
    quiet_trainer(max_epochs=2).fit(resumed, data(), ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_gpt2_under_block_fa():
    names = {"units": ["gpt.transformer.h.*"], "readout": ["gpt.transformer.ln_f", "gpt.lm_head"]}
    block = rule(BlockFA, stray="train", **names)
    quiet_trainer(max_epochs=1).fit(block, data())
    credit = block.credit(next(iter(data())))
    assert credit["net.gpt.transformer.h.0"].shape == (4, 5, 8)
    assert credit["net.gpt.transformer.h.0"].abs().sum() > 0


def test_our_gpt_needs_no_proof():
    net = GPT(10, block_size=8, depth=1, heads=2, width=8)
    assert not add_feedback(net)._forward_hooks
