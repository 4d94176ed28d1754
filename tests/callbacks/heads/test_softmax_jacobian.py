"""Credit at the attention weights, against forwards and backwards written by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from lit_credit.callbacks import AttentionMaps, SoftmaxJacobian
from lit_credit.feedback import add_feedback
from lit_credit.models import GPT
from lit_credit.rules import BP, DFA, FA
from lit_credit.tasks import NextToken
from tests.callbacks import twin
from tests.callbacks.heads.attention_nets import (
    CAUSAL,
    E,
    Encoder,
    H,
    T,
    batch,
    direct_credit,
    exact_credit,
    make,
)


def numbers(a, g):
    """All quantities of a head, row by row and sample by sample."""
    energies, cosines = torch.zeros(3, dtype=torch.float64), {"diag": [], "ste": []}
    norm = 0.0
    for p, credit in zip(a.detach(), g, strict=True):
        full, diagonal = torch.zeros(T, T).double(), torch.zeros(T, T).double()
        for t in range(T):
            jacobian = torch.diag(p[t]) - torch.outer(p[t], p[t])
            full[t] = jacobian @ credit[t]
            diagonal[t] = jacobian.diagonal() * credit[t]
        off = full - diagonal
        pairs = ((diagonal, diagonal), (off, off), (2 * diagonal, off))
        energies += torch.stack([(x * y).sum() for x, y in pairs])
        norm += float((full * full).sum())
        for name, other in (("diag", diagonal), ("ste", credit * CAUSAL)):
            cosines[name].append(float((other * full).sum() / other.norm() / full.norm()))
    found = dict(zip(("r_diag", "r_off", "r_cross"), (energies / norm).tolist(), strict=True))
    for name, values in cosines.items():
        found[f"cosine_{name}"] = sum(values) / len(values)
        found[f"cosine_{name}_sd"] = float(torch.tensor(values, dtype=torch.float64).std())
    return found


def expected(attention, credits, prefix=""):
    return {
        f"{prefix}{quantity}/blocks.{layer}.attention/H{head:02d}": value
        for layer in range(2)
        for head in range(H)
        for quantity, value in numbers(attention[layer][:, head], credits[layer][:, head]).items()
    }


def check(values, wanted):
    assert {tag: values[tag] for tag in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_credit_of_direct_feedback_inside_of_a_unit(recompute):
    module, (x, y) = make(DFA, recompute=recompute), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    own, exact = direct_credit(module, x, y), exact_credit(module, x, y)
    check(values, expected(*own))
    check(values, expected(*exact, prefix="exact_"))
    for layer in range(2):
        cosine = twin.cosine(*(g[layer][:, 1][:, CAUSAL] for g in (own[1], exact[1])))
        assert values[f"credit_cosine/blocks.{layer}.attention/H01"] == pytest.approx(
            float(cosine.mean()), abs=1e-4
        )
    # Block 1 feeds the readout, which lies outside: its credit is not the gradient.
    assert values["credit_cosine/blocks.0.attention/H00"] < 0.99


def test_the_credit_of_feedback_alignment_comes_through_its_matrices():
    module, (x, y) = make(FA), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    matrices = {n.removeprefix("net."): p.feedback for n, p in module.feedback_matrices().items()}
    check(values, expected(*exact_credit(module, x, y, matrices)))
    check(values, expected(*exact_credit(module, x, y), prefix="exact_"))


def test_under_backpropagation_the_credit_is_the_exact_one_and_measured_once():
    module, (x, y) = make(BP), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    check(values, expected(*exact_credit(module, x, y)))
    assert not any("exact" in tag or "credit_cosine" in tag for tag in values)


@pytest.mark.parametrize("backward", ["diagonal", "ste"])
def test_the_exact_credit_of_a_local_backward_is_that_of_the_full_one(backward):
    def measured(backward):
        torch.manual_seed(0)
        net = GPT(
            vocab_size=7, block_size=6, depth=2, heads=2, width=8, attention_backward=backward
        )
        x = torch.randint(7, (5, 6), generator=torch.Generator().manual_seed(1))
        return twin.measured(SoftmaxJacobian(), BP(net, NextToken()), (x, x.roll(-1, 1)))

    local, full = measured(backward), measured("full")
    for head in ("H00", "H01"):
        tag = f"blocks.0.attention.heads/{head}"
        assert local[f"exact_r_diag/{tag}"] == pytest.approx(full[f"r_diag/{tag}"], rel=1e-4)
        assert local[f"credit_cosine/{tag}"] < 0.999


def test_entropies_keys_and_means_of_attention():
    module, (x, y) = make(BP), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    maps = twin.measured(AttentionMaps(), module, (x, y))
    attention, _ = exact_credit(module, x, y)
    for layer in range(2):
        for head in range(H):
            entropies, seen = [], []
            for rows in attention[layer][:, head].tolist():
                for row in rows:
                    seen += [a for a in row if a > 0]
                    entropies.append(-sum(a * math.log(a) for a in row if a > 0))
            tag = f"blocks.{layer}.attention/H{head:02d}"
            mean = sum(entropies) / len(entropies)
            keys = sum(map(math.exp, entropies)) / len(entropies)
            assert values[f"entropy/{tag}"] == pytest.approx(mean, rel=1e-4)
            assert maps[f"entropy/{tag}"] == pytest.approx(mean, rel=1e-4)
            assert values[f"effective_keys/{tag}"] == pytest.approx(keys, rel=1e-4)
            assert values[f"mean_attention/{tag}"] == pytest.approx(sum(seen) / len(seen))
    assert len(maps) == 2 * H


# Modules that know nothing of lit_credit


def encoder_by_hand(module, x, y):
    """The encoder's forward written out; A of both layers and dL/dA by autograd."""
    p = {n: v.detach().double() for n, v in module.named_parameters()}
    allowed = (torch.arange(T) < 1 + torch.arange(len(x))[:, None])[:, None, None]
    x, attention = x.double().requires_grad_(), []
    for index in range(2):
        own = {n.removeprefix(f"encoder.layers.{index}."): v for n, v in p.items()}
        qkv = x @ own["self_attn.in_proj_weight"].T + own["self_attn.in_proj_bias"]
        q, k, v = (t.unflatten(-1, (H, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        scores = q @ k.transpose(2, 3) / math.sqrt(E // H)
        a = scores.masked_fill(~allowed, -math.inf).softmax(-1)
        attention.append(a)
        y1 = (a @ v).transpose(1, 2).flatten(2)
        y1 = y1 @ own["self_attn.out_proj.weight"].T + own["self_attn.out_proj.bias"]
        x = F.layer_norm(x + y1, (E,), own["norm1.weight"], own["norm1.bias"])
        y2 = (x @ own["linear1.weight"].T + own["linear1.bias"]).relu()
        y2 = y2 @ own["linear2.weight"].T + own["linear2.bias"]
        x = F.layer_norm(x + y2, (E,), own["norm2.weight"], own["norm2.bias"])
    loss = F.cross_entropy(x[:, 0] @ p["head.weight"].T + p["head.bias"], y)
    return attention, torch.autograd.grad(loss, attention), allowed


def test_a_transformer_encoder_with_padding():
    module, (x, y) = Encoder(), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    entropies = twin.measured(AttentionMaps(), module, (x, y))
    attention, credits, allowed = encoder_by_hand(module, x, y)
    for layer, (a, g) in enumerate(zip(attention, credits, strict=True)):
        for head in range(H):
            p, credit = a[:, head].detach(), g[:, head]
            full = p * (credit - (p * credit).sum(-1, keepdim=True))
            diagonal = p * (1 - p) * credit
            ratio = float(diagonal.square().sum() / full.square().sum())
            tag = f"encoder.layers.{layer}.self_attn/H{head:02d}"
            assert values[f"r_diag/{tag}"] == pytest.approx(ratio, rel=1e-3)
            # The first sample has a single key: nothing to choose, so no cosine.
            pairs = (credit.masked_fill(~allowed[:, 0], 0.0)[1:], full[1:])
            cosine = twin.cosine(*(x.flatten(1) for x in pairs)).mean()
            assert values[f"cosine_ste/{tag}"] == pytest.approx(float(cosine), abs=1e-3)
            entropy = float(torch.special.entr(p).sum(-1).mean())
            assert entropies[f"entropy/{tag}"] == pytest.approx(entropy, rel=1e-4)
    assert not any("exact" in tag for tag in values)


def test_a_foreign_module_with_feedback_layers_has_two_credits():
    module = Encoder()
    add_feedback(module.encoder, seed=1)
    values = twin.measured(SoftmaxJacobian(), module, batch())
    # Above the last attention lie matrices with feedback of their own.
    assert values["credit_cosine/encoder.layers.1.self_attn/H00"] < 0.9
    assert values["exact_r_diag/encoder.layers.1.self_attn/H00"] == pytest.approx(
        twin.measured(SoftmaxJacobian(), Encoder(), batch())[
            "r_diag/encoder.layers.1.self_attn/H00"
        ],
        rel=1e-4,
    )
