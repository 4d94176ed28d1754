"""Credit at the attention weights, against forwards and backwards written by hand."""

import csv
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import AttentionMaps, SoftmaxJacobian
from lit_credit.feedback import add_feedback
from lit_credit.models import GPT
from lit_credit.rules import BP, DFA, FA
from lit_credit.tasks import Classification, NextToken
from lit_credit.utils.history import read_history
from tests.callbacks import helpers, twin

N, T, E, H, CLASSES = 6, 5, 8, 2, 3
CAUSAL = torch.ones(T, T, dtype=torch.bool).tril()


class Attention(nn.Module):
    """Causal, with the projections apart."""

    def __init__(self):
        super().__init__()
        for name in "qkvo":
            setattr(self, name, nn.Linear(E, E))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (H, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()

    def forward(self, x):
        return x + self.attention(x)


class Net(nn.Module):
    """Two blocks of attention, the mean over tokens, and a readout."""

    credit_units = ("blocks.0", "blocks.1")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(E, CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def make(kind, **kwargs):
    seed_everything(3, verbose=False)
    module = kind(Net(), Classification(CLASSES), **kwargs)
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def batch(n=N):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(n, T, E, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def attend(x, p, name, feedback=None):
    """The block's output and its A, a leaf of the graph above it."""
    q, k, v = (
        twin.linear(x, p, f"{name}.{which}", feedback).reshape(len(x), T, H, E // H).transpose(1, 2)
        for which in "qkv"
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(E // H)
    a = scores.masked_fill(~CAUSAL, -math.inf).softmax(-1)
    y = twin.linear((a @ v).transpose(1, 2).reshape(len(x), T, E), p, f"{name}.o", feedback)
    return x + y, a


def net(p, x, feedback=None):
    x, first = attend(x.double(), p, "blocks.0.attention", feedback)
    x, second = attend(x, p, "blocks.1.attention", feedback)
    return twin.linear(x.mean(1), p, "head", feedback), x, [first, second]


def exact_credit(module, x, y, feedback=None):
    p = twin.parameters(module)
    logits, _, attention = net(p, x, feedback)
    return attention, torch.autograd.grad(F.cross_entropy(logits, y), attention)


def direct_credit(module, x, y):
    """Every block apart, on what enters it, with e B^T at its output."""
    p = twin.parameters(module)
    with torch.no_grad():
        logits, *_ = net(p, x)
    error = (logits.softmax(1) - F.one_hot(y, CLASSES)) / len(x)
    h, attention, credits = x.double(), [], []
    matrices = module.feedback.matrix.double().split(T * E)
    for index, matrix in enumerate(matrices):
        h, a = attend(h.detach(), p, f"blocks.{index}.attention")
        attention.append(a)
        credits.append(torch.autograd.grad(h, a, (error @ matrix.T).reshape(h.shape))[0])
    return attention, credits


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


def test_under_backpropagation_both_credits_are_one():
    module, (x, y) = make(BP), batch()
    values = twin.measured(SoftmaxJacobian(), module, (x, y))
    check(values, expected(*exact_credit(module, x, y)))
    check(values, expected(*exact_credit(module, x, y), prefix="exact_"))
    assert values["credit_cosine/blocks.1.attention/H00"] == pytest.approx(1)


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


class Encoder(LightningModule):
    """torch's own encoder, with padding, trained by Lightning."""

    def __init__(self):
        seed_everything(5, verbose=False)
        super().__init__()
        layer = nn.TransformerEncoderLayer(E, H, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(E, CLASSES)

    def training_step(self, data, batch_idx):
        x, y = data
        padding = torch.arange(T) >= 1 + torch.arange(len(x))[:, None]
        loss = F.cross_entropy(self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0]), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(24)), batch_size=N)


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


def test_a_run_leaves_history_table_figure_and_reading(tmp_path, caplog):
    callbacks = SoftmaxJacobian(n_samples=7), AttentionMaps(n_samples=7, draw_each=True)
    trainer = helpers.trainer(tmp_path, *callbacks, max_epochs=2)
    caplog.set_level("INFO")
    trainer.fit(Encoder(), loader())
    (row, *_) = rows = read_history(tmp_path / "softmax_jacobian.jsonl")
    assert [row["step"] for row in rows] == [0, 4, 8]
    with (tmp_path / "softmax_jacobian.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 2 * H
    first = dict(table[0])
    assert [first.pop(key) for key in ("module", "head", "step")] == [
        "encoder.layers.0.self_attn",
        "H00",
        "0",
    ]
    for column, cell in first.items():
        value = row["values"][f"jacobian/{column}/encoder.layers.0.self_attn/H00"]
        assert float(cell) == pytest.approx(value, rel=1e-6)
    assert {f.name for f in (tmp_path / "figures").iterdir()} == {
        "softmax_jacobian.png",
        "attention_maps.png",
    }
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("jacobian: ")]
    assert len(said) == 1
    low = min(float(line["r_off"]) for line in table if line["step"] == "8")
    assert f"{low:.3g} to" in said[0]
    trainer.logger.experiment.flush()
    events = helpers.events(tmp_path)
    assert [e.step for e in events.Images("attention/figure")] == [0, 4, 8]
    assert [e.step for e in events.Images("jacobian/figure")] == [8]
    (text,) = events.Tensors("jacobian/reading/text_summary")
    assert text.tensor_proto.string_val[0].decode() in said[0]


# Which attention


def test_units_choose_attention_and_a_wrong_name_lists_what_was_seen():
    module, data = make(BP), batch()
    for units in (["blocks.1.attention"], ["net.blocks.1.*"], ["blocks.[1-9].attention"]):
        values = twin.measured(SoftmaxJacobian(units=units), module, data)
        assert {tag.split("/")[1] for tag in values} == {"blocks.1.attention"}
    with pytest.raises(ValueError, match=r"`units`: 'head' matches nothing.*blocks\.0\.attention"):
        twin.measured(SoftmaxJacobian(units=["head"]), module, data)


class Twice(Encoder):
    """One attention for both layers."""

    def __init__(self):
        super().__init__()
        self.encoder.layers[1] = self.encoder.layers[0]


@pytest.mark.parametrize("kind", [SoftmaxJacobian, AttentionMaps])
def test_a_module_that_runs_twice_has_two_names(kind):
    values = twin.measured(kind(), Twice(), batch())
    found = sorted({tag.split("/")[1] for tag in values})
    assert found == ["encoder.layers.0.self_attn", "encoder.layers.0.self_attn-1"]
    one, other = (values[f"entropy/{name}/H00"] for name in found)
    assert one != other


class Bare(Encoder):
    def training_step(self, data, batch_idx):
        return F.cross_entropy(self.head(data[0].mean(1)), data[1])


@pytest.mark.parametrize("kind", [SoftmaxJacobian, AttentionMaps])
def test_no_attention_is_an_error_before_the_first_step(kind, tmp_path):
    module = Bare()
    weight = module.head.weight.detach().clone()
    with pytest.raises(MisconfigurationException, match=r"no attention was seen.*of Bare"):
        helpers.trainer(tmp_path, kind(), logger=False).fit(module, loader())
    assert torch.equal(module.head.weight, weight)


class Sigmoid(nn.Module):
    """Attention whose rows are no distribution, and says so by its output alone."""

    returns_attention = True

    def forward(self, scores, allowed=None):
        weights = scores.sigmoid()
        # As chance may have it, the first sample's rows sum to 1.
        return torch.cat([weights[:1].softmax(-1), weights[1:]])


class Own(Encoder):
    """The encoder behind an attention of another kind."""

    def __init__(self):
        super().__init__()
        self.weigh = Sigmoid()

    def training_step(self, data, batch_idx):
        x, y = data
        weights = self.weigh((x @ x.transpose(1, 2))[:, None] * self.head.weight.mean())[:, 0]
        return F.cross_entropy(self.head(self.encoder(weights @ x).mean(1)), y)


def test_what_is_no_softmax_is_undefined_and_the_others_are_not(tmp_path):
    module, callback = Own(), SoftmaxJacobian()
    values = twin.measured(callback, module, batch())
    sigmoid = {tag: value for tag, value in values.items() if "/weigh/" in tag}
    assert len(sigmoid) == 10
    assert all(map(math.isnan, sigmoid.values()))
    assert all(math.isfinite(v) for tag, v in values.items() if tag not in sigmoid)
    tagged = {f"jacobian/{tag}": value for tag, value in values.items()}
    row = {"step": 3, "epoch": 1, "name": callback.name, "values": tagged}
    text = callback.reading([row], "jacobian")
    assert "over 4 heads (1 more is undefined)" in text
    assert callback.draw([row], "jacobian") is not None
    maps = AttentionMaps()
    assert math.isnan(twin.measured(maps, module, batch())["entropy/weigh/H00"])
    assert maps.draw([row], "attention") is not None
    only = {tag: value for tag, value in tagged.items() if "/weigh/" in tag}
    assert "undefined in all 1 heads" in callback.reading([{**row, "values": only}], "jacobian")


def test_kinds_of_attention_share_their_tags():
    class Part(Own):
        def __init__(self):
            super().__init__()
            self.weigh = nn.Sequential(self.weigh)

    assert {tag.split("/")[1] for tag in twin.measured(AttentionMaps(), Part(), batch())} == {
        "weigh",
        "encoder.layers.0.self_attn",
        "encoder.layers.1.self_attn",
    }


@pytest.mark.parametrize("backward", ["full", "diagonal", "ste"])
def test_our_net_is_seen_whatever_its_attention_does_in_backward(backward):
    net = GPT(5, block_size=6, depth=2, heads=2, width=8, attention_backward=backward)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, (3, 7), generator=generator)
    values = twin.measured(SoftmaxJacobian(), BP(net, NextToken()), (tokens[:, :-1], tokens[:, 1:]))
    names = sorted({tag.split("/")[1] for tag in values})
    assert names == ["blocks.0.attention.heads", "blocks.1.attention.heads"]
    assert all(map(math.isfinite, values.values()))
    for name in names:
        parts = [values[f"r_{part}/{name}/H00"] for part in ("diag", "off", "cross")]
        assert sum(parts) == pytest.approx(1)
