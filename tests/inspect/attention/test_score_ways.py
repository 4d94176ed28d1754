"""Norms and rotations of queries and keys, in submodules and in functions."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.proof import prove_heads
from lit_credit.inspect.attention.score_ways import with_ways

from . import function_heads as functions
from . import head_nets as nets
from . import wrong_heads as wrong
from .test_proof import OUTPUT, SCORES, TOKENS, built, stack
from .test_unreadable_heads import with_a_rotation_of_its_own

SMALL = {
    "vocab_size": 10,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 4,
}


def qwen3(**options):
    return Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=6, **options))


HUGGING_FACE = {
    "qwen3": qwen3,
    "qwen3 eager": lambda: qwen3(attn_implementation="eager"),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, head_dim=6)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**SMALL)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SMALL, use_qk_norm=True)),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**SMALL, head_dim=6, num_local_experts=2, num_experts_per_tok=1)
    ),
    "llama with yarn": lambda: nets.llama(rope_parameters=YARN),
    "gptj": with_a_rotation_of_its_own,
}


def proof(net):
    layers = read_heads(net, proved_later=True)
    return prove_heads(net, layers, lambda: net(TOKENS), who="Someone"), layers


@pytest.mark.parametrize("name", HUGGING_FACE)
@pytest.mark.parametrize("fresh", [True, False])
def test_nets_that_norm_or_rotate_in_their_own_way_are_proved(name, fresh):
    torch.manual_seed(0)
    net = HUGGING_FACE[name]().eval() if fresh else built(HUGGING_FACE[name])
    found, _ = proof(net)
    assert found.statements[OUTPUT] < 1e-4
    assert max(v for k, v in found.statements.items() if k.startswith(SCORES)) < 5e-3


@pytest.mark.few(8)
@pytest.mark.parametrize("size", [1.0, 0.02])
@pytest.mark.parametrize("kind", functions.READ)
def test_functions_that_no_name_tells_of_are_found(kind, size):
    found, _ = proof(stack(kind, size))
    assert max(found.statements.values()) < 5e-3


@pytest.mark.parametrize("size", [1.0, 0.02])
@pytest.mark.parametrize("kind", functions.REFUSED)
def test_what_is_nearly_one_of_them_is_refused(kind, size):
    with pytest.raises(MisconfigurationException, match="as read do not reproduce"):
        proof(stack(kind, size))


def test_the_rotation_that_is_found_is_the_one_that_runs():
    for kind, layout, frequencies in (
        (functions.NeighboursTurnAttention, "interleaved", [0.7, 0.05]),
        (wrong.RotatedByFunctionAttention, "half", [1.0, 0.3]),
        (functions.PartTurnsAttention, "half", [0.4]),
        (functions.TurnedBeforeKernelAttention, "half", [0.9, 0.2]),
    ):
        found, _ = proof(stack(kind))
        for way in found.ways.values():
            assert way.norm is None
            turned = way.rope.frequencies
            torch.testing.assert_close(turned, torch.tensor(frequencies), rtol=1e-3, atol=1e-4)
            if len(frequencies) > 1:
                assert way.rope.layout == layout


def test_gains_are_those_that_the_net_has_now():
    net = stack(functions.GainedAttention)
    found, layers = proof(net)
    with torch.no_grad():
        for block in net.blocks:
            block[1].gain_q.mul_(3).add_(1)
    for heads, block in zip(with_ways(net, layers, found.ways), net.blocks, strict=True):
        gain_q, gain_k = block[1].gain_q, block[1].gain_k
        folded = heads.folded()
        torch.testing.assert_close(folded.query, heads.query * gain_q)
        torch.testing.assert_close(folded.key, heads.key * gain_k)
        assert folded.score_norm is None


def test_the_folded_matrix_gives_the_direction_of_the_scores():
    net = stack(functions.NormModulesAttention)
    found, layers = proof(net)
    heads = with_ways(net, layers, found.ways)[0]
    attention = net.blocks[0][1]
    with torch.no_grad():
        attention.qkv.bias.zero_()
        attention.q_norm.bias.zero_()
        attention.k_norm.bias.zero_()
        x = torch.randn(1, 5, nets.WIDTH)
        q, k, _ = attention.parts(x)
        scores = attention.q_norm(q) @ attention.k_norm(k).mT
        folded = heads.folded()
        ours = torch.einsum("ntd,hdk,hek,nse->nhts", x, folded.query, folded.key, x)
        ratio = scores / ours
    assert (ratio > 0).all()
    outer = ratio[..., :1] * ratio[..., :1, :] / ratio[..., :1, :1]
    torch.testing.assert_close(ratio, outer, rtol=1e-3, atol=1e-3)  # a factor a position


@pytest.mark.parametrize("options", functions.LENS.values(), ids=functions.LENS)
def test_the_layout_of_transformer_lens(options):
    torch.manual_seed(0)
    net = functions.lens_net(**options)
    found, layers = proof(net)
    assert found.statements[OUTPUT] < 1e-5
    assert found.statements[SCORES] < 1e-4
    attention = net.blocks[1].attn
    assert [layer.name for layer in layers] == ["blocks.0.attn", "blocks.1.attn"]
    torch.testing.assert_close(layers[1].query, attention.W_Q.detach() * 6**0.5 / 2)
    assert torch.equal(layers[1].key, attention.W_K)
    assert torch.equal(layers[1].output, attention.W_O.mT)
    if "rotary" in options:
        rope = found.ways["blocks.1.attn"].rope
        assert rope.layout == options["rotary"]
        torch.testing.assert_close(rope.frequencies, torch.tensor([1.0, 0.1]))


@pytest.mark.parametrize("names", [("qk_norm",), ("norm_q", "norm_k"), ("q_layernorm", "k_ln")])
def test_norms_of_usual_names_are_read_by_what_they_do(names):
    net = nets.our_gpt()
    attention = net.get_submodule("blocks.0.attention.heads")
    for name in names:
        norm = torch.nn.LayerNorm(4)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        attention.add_module(name, norm)
    read = read_heads(net)[0].score_norm
    assert read.centred
    assert not read.joint
    first, last = (attention.get_submodule(name) for name in (names[0], names[-1]))
    torch.testing.assert_close(
        read.query_gain, first.weight.detach().expand(4, 4), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        read.key_gain, last.weight.detach().expand(4, 4), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(read.query_shift, first.bias.detach().expand(4, 4))
    with pytest.raises(MisconfigurationException, match="do not reproduce"):
        proof(net)  # they do not run


def test_a_stack_of_other_shapes_is_no_layout_of_ours():
    net = functions.lens_net()
    for block in net.blocks:
        block.attn.W_O = torch.nn.Parameter(block.attn.W_O.mT.contiguous())
    with pytest.raises(MisconfigurationException, match="no attention whose heads can be read"):
        read_heads(net)


def test_a_sink_is_no_position():
    net = stack(functions.SinkAttention)
    found, layers = proof(net)
    assert not found.ways
    other = stack(wrong.FusedAttention)
    for mine, theirs in zip(layers, read_heads(other), strict=True):
        assert mine.query.shape == theirs.query.shape


def test_a_proof_leaves_norms_of_queries_as_they_were():
    net = stack(functions.NormModulesAttention)
    calls = []
    handle = net.blocks[0][1].q_norm.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    read_heads(net)
    assert not calls
    assert torch.equal(torch.get_rng_state(), state)
    handle.remove()
