"""Heads that cannot be read are refused by name, with the reason."""

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from transformers import (
    GPTJConfig,
    GPTJModel,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaConfig,
)
from transformers.models.llama.modeling_llama import LlamaAttention

from lit_credit.inspect.attention.head_weights import read_heads

from .head_nets import WIDTH, FusedAttention, Stack


def without_heads():
    attention = FusedAttention()
    del attention.n_head
    return Stack(attention)


def with_wrong_heads():
    attention = FusedAttention()
    attention.n_head = 3
    return Stack(attention)


def with_odd_rows():
    attention = FusedAttention()
    attention.c_attn = nn.Linear(WIDTH, 3 * WIDTH + 1)
    return Stack(attention)


def with_keys_of_another_width():
    return nn.ModuleDict({"cross": nn.MultiheadAttention(8, 2, kdim=6)})


class _Squashed(nn.Module):
    def forward(self, x):
        return x.tanh()


def with_queries_in_no_norm():
    attention = FusedAttention()
    attention.q_norm = attention.k_norm = _Squashed()
    return Stack(attention)


def with_queries_normed_alone():
    attention = FusedAttention()
    attention.q_norm = nn.RMSNorm(4)
    return Stack(attention)


def with_a_rotation_of_its_own():
    small = {"vocab_size": 10, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4}
    return GPTJModel(GPTJConfig(**small, bos_token_id=0, eos_token_id=0))


def with_a_rotation_from_outside():
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2)
    return nn.ModuleDict({"attention": LlamaAttention(config, 0)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_heads, r"'blocks\.0\.1' \(FusedAttention\).*none of `num_heads`"),
        (with_wrong_heads, "3 heads of 5 features, but an output of 16"),
        (with_odd_rows, "49 rows, which are no q, k, v for 16"),
        (with_keys_of_another_width, "'cross'.*`kdim` is 6 and `vdim` 8, other than .*, 8"),
        (with_queries_in_no_norm, "`q_norm` does to its queries or keys what no known norm does"),
        (with_queries_normed_alone, "`q_norm` norms its queries or keys and not both"),
        (with_a_rotation_of_its_own, "`rotary_dim`, so it may rotate.*`head_weights"),
        (with_a_rotation_from_outside, "argument `position_embeddings`.*may rotate"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(make, message):
    with pytest.raises(MisconfigurationException, match=message):
        read_heads(make())


def test_a_doubt_may_be_left_to_a_proof():
    for make in (with_queries_in_no_norm, with_a_rotation_of_its_own):
        (heads,) = read_heads(make(), proved_later=True)
        assert "quer" in heads.doubt


def test_a_choice_by_name_passes_by_what_cannot_be_read():
    net = nn.ModuleDict({"good": nn.MultiheadAttention(8, 2), "bad": without_heads()})
    assert [heads.name for heads in read_heads(net, ["good"])] == ["good"]


def test_a_net_without_known_attention_lists_what_was_looked_at():
    small = {"vocab_size": 10, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1}
    net = GPTNeoXModel(GPTNeoXConfig(**small, num_attention_heads=2))
    listed = r"found in GPTNeoXModel.*layers\.0\.attention \(GPTNeoXAttention: query_key_value, de"
    with pytest.raises(MisconfigurationException, match=f"(?s){listed}.*`head_weights"):
        read_heads(net)
