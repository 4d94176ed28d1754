"""The recorder on nets of other libraries, against attention in slow motion."""

import warnings

import pytest
import torch
from lightning.pytorch.demos import Transformer
from torch import nn
from torchvision.models import VisionTransformer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lit_credit.inspect.attention.recording import recorded_attention

from .attention_twin import slow_functional

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
PADDED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    net = nn.TransformerEncoder(layer, 2)
    padding = PADDED == 0
    names = ["layers.0.self_attn", "layers.1.self_attn"]
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    keys = ~padding[:, None, None].expand(2, 2, 5, 5)
    return net, lambda: net(x, src_key_padding_mask=padding), names, [keys] * 2


def decoder():
    net = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0), 2)
    x, memory = (torch.randn(n, 2, 8, dtype=torch.float64) for n in (5, 3))
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    names = [f"layers.{i}.{kind}" for i in (0, 1) for kind in ("self_attn", "multihead_attn")]
    return net, lambda: net(x, memory, tgt_mask=mask), names, [CAUSAL, None] * 2


def vision_transformer():
    net = VisionTransformer(
        image_size=4, patch_size=2, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12
    )
    nn.init.normal_(net.heads.head.weight)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    names = [f"encoder.layers.encoder_layer_{i}.self_attention" for i in (0, 1)]
    return net, lambda: net(x), names, [None] * 2


def lightning_demo():
    net = Transformer(vocab_size=10, ninp=8, nhead=2, nhid=12, nlayers=1, dropout=0.0)
    names = [
        "transformer.encoder.layers.0.self_attn",
        "transformer.decoder.layers.0.self_attn",
        "transformer.decoder.layers.0.multihead_attn",
    ]
    return net, lambda: net(TOKENS, TOKENS), names, [None, CAUSAL, None]


def gpt2(attention="sdpa", mask=None):
    config = GPT2Config(
        vocab_size=10,
        n_positions=8,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    net = GPT2LMHeadModel(config).eval()
    allowed = CAUSAL if mask is None else CAUSAL & (mask[:, None, None] == 1)
    names = [f"transformer.h.{i}.attn" for i in (0, 1)]
    return net, lambda: net(TOKENS, attention_mask=mask).logits, names, [allowed] * 2


def llama(attention="sdpa", mask=None):
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8,
        attn_implementation=attention,
    )
    net = LlamaForCausalLM(config).eval()
    allowed = CAUSAL if mask is None else CAUSAL & (mask[:, None, None] == 1)
    names = [f"model.layers.{i}.self_attn" for i in (0, 1)]
    return net, lambda: net(TOKENS, attention_mask=mask).logits, names, [allowed] * 2


NETS = [encoder, decoder, vision_transformer, lightning_demo, gpt2, llama]


def build(make, **options):
    torch.manual_seed(0)
    net, *rest = make(**options)
    return net.double(), *rest


def loss_of(output):
    return (output * torch.linspace(-1, 1, output.numel()).view_as(output).cos()).sum()


def observed(net, run):
    """Calls, dL/dA of each, and the output."""
    with recorded_attention(net) as calls:
        output = run()
        gradients = torch.autograd.grad(loss_of(output), [call.weights for call in calls])
    return calls, gradients, output


def parameter_gradients(net, output):
    return torch.autograd.grad(loss_of(output), list(net.parameters()), allow_unused=True)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("make", NETS)
def test_modules_are_named_and_outputs_and_gradients_stay(make, train):
    net, run, names, masks = build(make)
    net.train(train and make not in (gpt2, llama))
    expected = run()
    with recorded_attention(net) as calls:
        output = run()
        gradients = parameter_gradients(net, output)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients, parameter_gradients(net, expected))
    assert [call.module for call in calls] == names
    for call, mask in zip(calls, masks, strict=True):
        torch.testing.assert_close(call.weights.sum(-1), torch.ones_like(call.weights[..., 0]))
        if mask is None:
            assert call.allowed is None
        else:
            assert torch.equal(call.allowed, mask.expand(call.weights.shape))
            assert (call.weights[~call.allowed] == 0).all()


@pytest.mark.parametrize("make", NETS)
def test_weights_and_their_gradients_are_those_of_the_slow_twin(make):
    net, run, _, _ = build(make)
    calls, gradients, output = observed(net, run)
    with torch.no_grad(), slow_functional({}) as seen:
        torch.testing.assert_close(run(), output, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close([call.weights for call in calls], seen, rtol=1e-5, atol=1e-6)
    step = 1e-4 if make is not llama else 1e-2  # whose norms compute in float32
    for index, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, dtype=gradient.dtype)
        losses = []
        for sign in (1, -1):
            with torch.no_grad(), slow_functional({index: sign * step * direction}):
                losses.append(loss_of(run()))
        slope = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mask", [None, PADDED])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_eager_attention_of_hugging_face_is_the_sdpa_one(make, mask):
    net, run, names, masks = build(make, attention="eager", mask=mask)
    twin, run_twin, _, _ = build(make, attention="sdpa", mask=mask)
    assert net.config._attn_implementation == "eager" != twin.config._attn_implementation
    calls, gradients, _ = observed(net, run)
    expected, expected_gradients, _ = observed(twin, run_twin)
    assert [call.module for call in calls] == names
    assert [call.query for call in calls] == [None, None]
    for mine, other, allowed in zip(calls, expected, masks, strict=True):
        torch.testing.assert_close(mine.weights.double(), other.weights, rtol=1e-5, atol=1e-6)
        assert torch.equal(mine.allowed, other.allowed)
        assert torch.equal(mine.allowed, allowed.expand(mine.weights.shape))
    for mine, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5)


def test_queries_that_share_keys_are_recorded_as_they_are():
    net, run, _, _ = build(llama)
    calls, _, _ = observed(net, run)
    assert calls[0].query.shape == (2, 4, 5, 4)
    assert calls[0].key.shape == calls[0].value.shape == (2, 2, 5, 4)


def test_dropout_is_respected():
    torch.manual_seed(0)
    net = Transformer(vocab_size=10, ninp=8, nhead=2, nhid=12, nlayers=1, dropout=0.5).train()
    torch.manual_seed(1)
    expected = net(TOKENS, TOKENS)
    torch.manual_seed(1)
    with recorded_attention(net) as calls:
        torch.testing.assert_close(net(TOKENS, TOKENS), expected)
    torch.testing.assert_close(calls[0].weights.sum(-1), torch.ones(2, 2, 5))


def test_the_fused_inference_path_of_encoders_is_off():
    net, run, names, _ = build(encoder)
    net.eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own use of its prototype of nested tensors
        expected = run()
    assert (expected[PADDED == 0] == 0).all()
    calls, gradients, output = observed(net, run)
    assert [call.module for call in calls] == names
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    torch.testing.assert_close(output[PADDED == 1], expected[PADDED == 1])
    with torch.no_grad(), recorded_attention(net) as calls:
        run()
    assert [call.module for call in calls] == names
    assert not calls[0].weights.requires_grad
