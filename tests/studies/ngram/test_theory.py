"""The theory's numbers against loops, and of a net that was trained."""

import io
import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, seed_everything
from scipy.optimize import minimize
from torch import nn

from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.studies.ngram import AlmostRankD, LogProbTheory, LowRank, NGram, NGramPrediction
from tests import support
from tests.support import ChangedData

TAGS = ("kl", "variance", "kl_best", "kl_second_order", "kl_low_rank", "cosine")


class Pairs(LightningModule):
    """A free vector for each pair of symbols, at the last of two positions."""

    def __init__(self, width=2, bias=False):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(12, width)
        self.out = nn.Linear(width, 4, bias=bias)
        self.other = nn.Linear(width, 7)

    def forward(self, x):
        h = self.table(x[:, 0] * 4 + x[:, 1])
        return self.out(torch.stack([torch.ones_like(h), h], 1))


def measured(module, data=None, **options):
    callback = LogProbTheory(**({"units": ["out"]} | options))
    return support.measured(callback, module, data or support.Data())


def kl(p, f):
    q = np.exp(f) / np.exp(f).sum()
    return float((p * np.log(p / q)).sum())


def by_hand(module, width):
    """Every number, context by context."""
    _, prior, rows = (part.double().numpy() for part in support.Data().contexts())
    u, vectors = (w.detach().double().numpy() for w in (module.out.weight, module.table.weight))
    b = np.zeros(4) if module.out.bias is None else module.out.bias.detach().double().numpy()
    logs = np.log(rows) - np.log(rows).mean(1, keepdims=True)
    left, s, right = np.linalg.svd(logs, full_matrices=False)
    cut = sum(s[k] * np.outer(left[:, k], right[k]) for k in range(min(width, 4)))
    # What the softmax sees: the directions of w that some difference of two rows of W_U has.
    _, size, directions = np.linalg.svd(np.array([x - y for x in u for y in u]))
    seen = directions[: int((size > 1e-8).sum())]
    found = dict.fromkeys(TAGS, 0.0)
    for m, (p, w) in enumerate(zip(rows, vectors, strict=True)):
        weight = prior[m] / prior.sum()
        centred = u - p @ u
        variance = sum(p[i] * np.outer(centred[i], centred[i]) for i in range(4))
        target = np.log(p) - b
        best = np.linalg.pinv(variance, rcond=1e-9) @ ((p * (target - p @ target)) @ centred)
        gap = u @ w + b - np.log(p)
        one, other = seen @ best, seen @ w
        found["kl"] += weight * kl(p, u @ w + b)
        found["variance"] += weight * float(p @ (gap - p @ gap) ** 2) / 2
        least = minimize(lambda w, p=p: kl(p, u @ w + b), np.zeros(width), tol=1e-12)
        found["kl_best"] += weight * least.fun
        found["kl_second_order"] += weight * kl(p, u @ best + b)
        found["kl_low_rank"] += weight * kl(p, cut[m])
        found["cosine"] += weight * one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [1, 2])
def test_against_a_loop_over_contexts(width, bias):
    module = Pairs(width, bias)
    values, slow = measured(module), by_hand(module, width)
    assert values == pytest.approx(slow, rel=1e-5)
    assert all(value > 1e-3 for tag, value in slow.items() if tag != "cosine")


def test_what_the_softmax_does_not_see_of_a_vector_is_left_out():
    module = Pairs(3)
    with torch.no_grad():
        module.out.weight[:, 2] = 5.0  # the same for every symbol
    before = measured(module)
    assert before == pytest.approx(by_hand(module, 3), rel=1e-5)
    with torch.no_grad():
        module.table.weight[:, 2] += 3.0
    assert measured(module) == pytest.approx(before, rel=1e-4)
    # More features than symbols: every distribution is there, by vectors of four dimensions.
    module = Pairs(6)
    values = measured(module)
    assert values["kl_second_order"] == pytest.approx(0, abs=1e-6)
    assert values["kl_best"] == pytest.approx(0, abs=1e-6)
    assert values["kl_low_rank"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        rows = support.Data().contexts()[2].double()
        w = (rows.log() - rows.log().mean(1, keepdim=True)) @ torch.linalg.pinv(
            (module.out.weight.double() - module.out.weight.double().mean(0)).mT
        )
        u = module.out.weight.double()
        nothing = torch.linalg.svd(u - u.mean(0)).Vh[-1]
        module.table.weight.copy_(w + 7 * nothing)
    values = measured(module)
    assert values["kl"] == pytest.approx(0, abs=1e-6)
    assert values["cosine"] == pytest.approx(1)


def test_a_symbol_that_cannot_come_leaves_the_divergence_alone():
    def change(where, prior):
        def changed(c):
            rows, weight = c.rows.clone(), c.prior.clone()
            rows[where] = torch.tensor([1.0, 0.0, 0.0, 0.0])
            weight[where] *= prior
            return c._replace(rows=rows, prior=weight / weight.sum())

        return ChangedData(changed)

    values = measured(Pairs(), change(0, 1.0))
    assert math.isfinite(values.pop("kl"))
    assert all(map(math.isnan, values.values()))
    # In a context that does not come it does not matter.
    assert all(map(math.isfinite, measured(Pairs(), change(0, 0.0)).values()))


def test_vectors_of_length_zero_have_no_direction():
    module = Pairs()
    nn.init.zeros_(module.table.weight)
    values = measured(module)
    assert math.isnan(values.pop("cosine"))
    assert all(map(math.isfinite, values.values()))


def test_what_is_not_the_unembedding_is_named():
    with pytest.raises(MisconfigurationException, match=r"'other' makes 7 numbers.*one of 4 symb"):
        measured(Pairs(), units=None)
    with pytest.raises(ValueError, match=r"`units` matches out, other"):
        measured(Pairs(), units=["o*"])
    module = Pairs()
    module.other = nn.Linear(2, 4)
    with pytest.raises(MisconfigurationException, match=r"'other' did not run.*Set `units`"):
        measured(module, units=["other"])
    with pytest.raises(MisconfigurationException, match=r"an nn\.Linear, which LightningModule"):
        measured(LightningModule(), units=None)


def test_a_trained_net_is_as_good_as_its_unembedding_allows(tmp_path):
    """E9: the net ends at the second-order divergence, below the cut SVD, with those vectors."""
    seed_everything(0, verbose=False)
    data = NGram(AlmostRankD(large=20.0, small=4.0), mode="exact", steps_per_epoch=600)
    module = BP(
        LowRank(vocab_size=10, width=5),
        NGramPrediction(),
        optimizer=lambda p: torch.optim.Adam(p, lr=2e-2),
        updates_per_step=100,
    )
    trainer = support.trainer(tmp_path, LogProbTheory(), logger=False, max_epochs=1)
    trainer.fit(module, datamodule=data)
    first, last = ({t: row["values"][f"theory/{t}"] for t in TAGS} for row in _rows(tmp_path))
    assert first["kl"] > 10 * last["kl"]
    assert abs(first["cosine"]) < 0.5
    # The divergence itself was minimised, so that it is a little less than to second order.
    assert last["kl"] < last["kl_second_order"] < 1.1 * last["kl"]
    assert 0.98 * last["kl"] < last["kl_best"] <= last["kl"]
    assert last["variance"] == pytest.approx(last["kl"], rel=0.03)
    assert last["kl"] < 0.97 * last["kl_low_rank"]
    assert last["cosine"] > 0.95


def _rows(folder):
    rows = read_history(folder / "log_prob_theory.jsonl")
    assert [row["step"] for row in rows] == [0, 600]
    return rows


def test_the_figure_has_two_panels_and_says_what_is_undefined():
    rows = [
        {"step": step, "epoch": 0, "name": "", "values": {f"theory/{t}": v for t in TAGS}}
        for step, v in ((0, 1.0), (5, 0.5))
    ]
    for row in rows:
        row["values"]["theory/kl_low_rank"] = math.nan
    figure = LogProbTheory().draw(rows, "theory")
    left, right = figure.axes
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert [list(line.get_ydata()) for line in left.lines] == [[1.0, 0.5]] * 4
    assert [text.get_text() for text in right.texts] == ["cosine 0.5"]
    rows[0]["values"] = rows[1]["values"] = {"theory/kl": 1.0, "theory/cosine": math.nan}
    figure = LogProbTheory().draw(rows, "theory")
    assert [text.get_text() for text in figure.axes[1].texts] == ["n/a"]
    figure.savefig(io.BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_net_that_diverged_is_measured_too(part, value):
    module = Pairs(bias=True)
    nn.init.constant_(getattr(module.out, part), value)
    values = measured(module)
    assert set(values) == set(TAGS)
    assert math.isfinite(values.pop("kl_low_rank"))  # no unembedding enters it
    assert all(map(math.isnan, values.values()))
