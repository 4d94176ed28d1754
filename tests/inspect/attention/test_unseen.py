"""The error about attention that cannot be seen."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import flex_attention
from transformers import LlamaConfig, LlamaForCausalLM

from lit_credit.inspect.attention.recording import recorded_attention
from lit_credit.inspect.attention.unseen import check_recorded

compiled = torch.compile(flex_attention)


class Direct(nn.Module):
    def forward(self, x):
        return flex.flex_attention(x, x, x)


class Compiled(nn.Module):
    def forward(self, x):
        return self.mix(x)

    def mix(self, x):
        return compiled(x, x, x)


def helper(x):
    return [flex_attention(row, row, row) for row in x]


class Indirect(nn.Module):
    def forward(self, x):
        return helper(x)


class Library(nn.Module):
    def forward(self, x):
        from xformers.ops import memory_efficient_attention as attend

        return attend(x, x, x)


class Flash(nn.Module):
    def forward(self, x):
        from flash_attn import flash_attn_func

        return flash_attn_func(x, x, x)


class HandMadeAttention(nn.Module):
    """What the recorder cannot know to be attention."""

    def __init__(self):
        super().__init__()
        self.attn_norm = nn.LayerNorm(4)

    def forward(self, x):
        weights = (x @ x.mT).exp()
        return weights / weights.sum(-1, keepdim=True) @ x


def message(net, calls=()):
    with pytest.raises(MisconfigurationException) as error:
        check_recorded(net, calls)
    return str(error.value)


def test_a_net_whose_attention_was_seen_passes():
    net = nn.MultiheadAttention(4, 2)
    x = torch.randn(3, 1, 4)
    with recorded_attention(net) as calls:
        net(x, x, x)
    check_recorded(net, calls)


def test_what_looks_like_attention_is_listed():
    net = nn.Sequential(nn.Linear(4, 4), HandMadeAttention())
    with recorded_attention(net) as calls:
        net(torch.randn(2, 3, 4))
    text = message(net, calls)
    assert "forward pass of Sequential" in text
    assert "\n  1 (HandMadeAttention)\n" in text
    assert "attn_norm" not in text
    assert "returns_attention = True" in text
    assert "attn_implementation='sdpa'" in text


@pytest.mark.parametrize(
    ("part", "kernels"),
    [
        (Direct, "flex_attention"),
        (Compiled, "flex_attention"),
        (Indirect, "flex_attention"),
        (Library, "memory_efficient_attention, xformers"),
        (Flash, "flash_attn"),
    ],
)
def test_fused_kernels_are_named(part, kernels):
    text = message(nn.Sequential(nn.Linear(4, 4), part()))
    assert f"\n  1 ({part.__name__}), whose code names {kernels}: not visible\n" in text


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_not_seen():
    net = Direct()
    with torch.no_grad(), recorded_attention(net) as calls:
        net(torch.randn(1, 1, 16, 16))
    assert "the module itself (Direct), whose code names flex_attention" in message(net, calls)


@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_the_implementation_that_hugging_face_chose_is_named(implementation):
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        attn_implementation=implementation,
    )
    text = message(LlamaForCausalLM(config))
    assert text.count("Llama") == 2
    line = "model.layers.0.self_attn (LlamaAttention)"
    flexible = ", whose code names flex_attention: not visible"
    assert f"\n  {line}{flexible if implementation == 'flex_attention' else ''}\n" in text


def test_a_net_without_attention_and_one_with_a_lot():
    assert "none by its class" in message(nn.Linear(2, 2))
    deep = nn.ModuleList(nn.MultiheadAttention(2, 1) for _ in range(12))
    text = message(deep)
    assert "0 (MultiheadAttention)" in text
    assert len(text) < 1500
