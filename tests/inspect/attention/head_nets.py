"""Small nets with attention of many makes, their parameters random, norms and biases too."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    CohereConfig,
    CohereForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from lit_credit.models import GPT

VOCAB, WIDTH, LENGTH = 10, 16, 5
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


class FusedAttention(nn.Module):
    """The way of nanoGPT and timm: one Linear for q, k and v."""

    def __init__(self, names=("c_attn", "c_proj"), bias=True):
        super().__init__()
        self.names = names
        self.n_head = 4
        setattr(self, names[0], nn.Linear(WIDTH, 3 * WIDTH, bias=bias))
        setattr(self, names[1], nn.Linear(WIDTH, WIDTH, bias=bias))

    def forward(self, x):
        fused, output = (getattr(self, name) for name in self.names)
        q, k, v = (y.unflatten(-1, (4, -1)).transpose(1, 2) for y in fused(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return output(y.transpose(1, 2).flatten(2))


class SharedKeys(nn.Module):
    """One fused Linear, four queries that share two keys and values, heads wider than d / H."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 4, 6
        self.qkv_proj = nn.Linear(WIDTH, 24 + 2 * 12)
        self.o_proj = nn.Linear(24, WIDTH)

    def forward(self, x):
        parts = self.qkv_proj(x).split([24, 12, 12], -1)
        q, k, v = (y.unflatten(-1, (-1, 6)).transpose(1, 2) for y in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class Rotary(nn.Module):
    layout = "interleaved"

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.tensor([1.0, 0.3]))

    def forward(self, x):
        angles = torch.arange(x.shape[-2])[:, None] * self.frequencies
        z = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


class RotaryAttention(nn.Module):
    """As ours, with a child ``rotary``; the output stands in a Sequential."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.0))
        self.rotary = Rotary()

    def forward(self, x):
        q, k, v = (
            f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v)
        )
        y = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v, is_causal=True)
        return self.to_out(y.transpose(1, 2).flatten(2))


class Stack(nn.Module):
    """Symbols, then pre-norm attention."""

    def __init__(self, *attentions, norm=nn.LayerNorm):
        super().__init__()
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.token = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(nn.Sequential(norm(WIDTH), a) for a in attentions)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = x + block(x)
        return x


def our_gpt(**options):
    return GPT(VOCAB, block_size=LENGTH, depth=2, heads=4, width=WIDTH, **options)


def nano_gpt():
    return Stack(FusedAttention(), FusedAttention(bias=False))


def timm_like():
    return Stack(FusedAttention(("qkv", "proj")), norm=nn.RMSNorm)


def shared_keys():
    return Stack(SharedKeys())


def rotary():
    return Stack(RotaryAttention(), RotaryAttention())


class Embedded(nn.Module):
    """torch's encoder behind an embedding."""

    def __init__(self, norm_first, batch_first, bias=True):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 12, 0.0, norm_first=norm_first, batch_first=batch_first, bias=bias
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens):
        return self.encoder(self.embed(tokens))


def encoder_pre_norm():
    return Embedded(norm_first=True, batch_first=True)


def encoder_post_norm():
    return Embedded(norm_first=False, batch_first=False)


def encoder_without_bias():
    return Embedded(norm_first=True, batch_first=True, bias=False)


_SYMBOLS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2(**options):
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=8, n_embd=WIDTH, n_layer=2, n_head=4, **_SYMBOLS, **options
    )
    return GPT2LMHeadModel(config)


def gpt2_scaled_by_layer():
    return gpt2(scale_attn_by_inverse_layer_idx=True)


def _llama_like(config, model, **options):
    return model(
        config(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8,
            **_SYMBOLS,
            **options,
        )
    )


def llama(**options):
    return _llama_like(LlamaConfig, LlamaForCausalLM, attention_bias=True, head_dim=6, **options)


def qwen2():
    return _llama_like(Qwen2Config, Qwen2ForCausalLM)


def smol_lm3():
    """Its second layer does not rotate."""
    return _llama_like(SmolLM3Config, SmolLM3ForCausalLM, no_rope_layers=[1, 0])


def cohere():
    """Rotates pairs of neighbours."""
    return _llama_like(CohereConfig, CohereForCausalLM)


def phi():
    """Rotates a part of the features."""
    return _llama_like(PhiConfig, PhiForCausalLM, partial_rotary_factor=0.5)


def bert():
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=12,
        max_position_embeddings=8,
    )
    return BertModel(config)


def t5():
    """Does not scale its scores, and adds a bias to them."""
    config = T5Config(
        vocab_size=VOCAB, d_model=WIDTH, d_kv=6, d_ff=12, num_layers=2, num_heads=4, **_SYMBOLS
    )
    return T5EncoderModel(config)
