"""Heads as read are those of the net, or the net is refused."""

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.proof import prove_heads
from lit_credit.models import GPT, RotaryTransformer
from lit_credit.studies.ngram import AttentionOnly

from . import head_nets as nets
from . import wrong_heads as wrong
from .test_head_weights import NETS

TOKENS = torch.randint(nets.VOCAB, (4, 5), generator=torch.Generator().manual_seed(0))
OUTPUT = "heads as read give the output of their attention"
SCORES = "heads as read give the scores of their attention"


def built(make, dtype=torch.float32, size=1.0):
    """A net with weights of another size than at the start, biases too."""
    torch.manual_seed(0)
    net = make().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter)).mul_(size)
    return net.to(dtype)


def proved(net, **options):
    found = prove_heads(net, read_heads(net), lambda: net(TOKENS), who="Someone", **options)
    return found.statements


def attention_only(**options):
    return AttentionOnly(nets.VOCAB, 6, 2, 3, 2, mlp_width=5, block_size=5, **options)


OURS = [
    attention_only,
    lambda: attention_only(separate_heads=True),
    lambda: attention_only(silent_heads=True, skip_pos_ov=True),
    lambda: RotaryTransformer(nets.VOCAB, 16, 2, 2),
    lambda: GPT(nets.VOCAB, 5, 2, 2, 16, attention="sigmoid"),
    lambda: GPT(nets.VOCAB, 5, 2, 2, 16, attention_backward="diagonal"),
]


@pytest.mark.parametrize("size", [1.0, 0.05])
@pytest.mark.parametrize("make", [*NETS, *OURS])
def test_right_heads_are_proved(make, size):
    found = proved(built(make, size=size))
    assert found.pop(OUTPUT) < 1e-4
    ((scores, error),) = found.items()
    assert scores.startswith(SCORES)
    assert ("a bias by position" in scores) == (make is nets.t5)
    assert error < 1e-2  # scores that are small round by more
    assert size < 1 or error < 1e-4


@pytest.mark.parametrize(
    "make", [nets.our_gpt, nets.encoder_pre_norm, nets.gpt2, nets.llama, nets.bert, attention_only]
)
def test_right_heads_are_proved_in_half_precision(make):
    assert max(proved(built(make, torch.bfloat16)).values()) < 0.02


def stack(kind, size=1.0):
    net = built(lambda: nets.Stack(kind(), kind()))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "qkv" in name:
                parameter.mul_(size)
    return net


@pytest.mark.parametrize("kind", wrong.RIGHT)
def test_a_bias_by_position_and_a_sigmoid_are_no_fault(kind):
    assert max(proved(stack(kind)).values()) < 1e-4


@pytest.mark.parametrize("size", [1.0, 0.02])
@pytest.mark.parametrize("kind", wrong.SCORES)
def test_wrong_scores_are_refused_even_where_they_are_small(kind, size):
    net = stack(kind, size)
    with pytest.raises(MisconfigurationException, match=r"'blocks\.0\.1' as read.*its scores are"):
        proved(net)
    assert proved(net, scores=False)[OUTPUT] < 1e-4  # nothing else is wrong


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("kind", wrong.OUTPUTS)
def test_wrong_outputs_are_refused(kind, scores):
    with pytest.raises(MisconfigurationException, match=r"Someone: .*'blocks\.0\.1'.*its output"):
        proved(stack(kind), scores=scores)


def test_attention_that_cannot_be_seen_is_proved_by_its_output():
    class Unseen(wrong.FusedAttention):
        pass

    class Other(wrong.CappedAttention):
        pass

    for kind, right in ((Unseen, True), (Other, False)):
        kind.__name__ = "Kernel"  # the recorder hears a softmax inside of attention alone
        net = stack(kind)
        if right:
            assert proved(net) == {OUTPUT: pytest.approx(0, abs=1e-5)}
        else:
            with pytest.raises(MisconfigurationException, match="weights A could not be seen"):
                proved(net)


def test_what_did_not_run_or_is_not_finite_is_not_proved():
    net = built(lambda: nets.Stack(wrong.FusedAttention(), wrong.FusedAttention()))
    net.spare = wrong.FusedAttention()
    found = proved(net)
    ((name, value),) = ((n, v) for n, v in found.items() if n.startswith("not proved"))
    assert "'spare', which did not run" in name
    assert math.isnan(value)
    with pytest.raises(MisconfigurationException, match=r"none of the attention.*spare"):
        prove_heads(net, read_heads(net, ["spare"]), lambda: net(TOKENS), who="Someone")
    nn.init.constant_(net.blocks[0][1].qkv.weight, math.nan)
    assert all(map(math.isnan, proved(net).values()))


def test_a_proof_leaves_no_hook_and_no_random_number():
    net = built(nets.our_gpt)
    before = torch.get_rng_state(), {n: p.clone() for n, p in net.named_parameters()}
    proved(net)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(p, before[1][n]) for n, p in net.named_parameters())
    for child in net.modules():
        assert not child._forward_hooks
        assert not child._forward_pre_hooks
