import math

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks import EmbeddingGeometry
from lit_credit.models import GPT
from lit_credit.rules import BP
from lit_credit.tasks import NextToken
from tests import support

SYMBOLS, WIDTH = 10, 8


def cosines(w):
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    return w @ w.T


def off_diagonal(c):
    return [c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j]


def measured(module, data=None, **options):
    callback = EmbeddingGeometry(**options)
    return support.measured(callback, module, data), callback


def test_embedding_and_unembedding_of_a_net_by_default():
    torch.manual_seed(0)
    net = GPT(SYMBOLS, depth=1, heads=2, width=WIDTH)
    values, _ = measured(BP(net, NextToken()))
    for name, weight in (("embed.token", net.embed.token.weight), ("head", net.head.weight)):
        w = weight.detach().double().numpy()
        assert values[f"cos2/{name}"] == pytest.approx(np.mean(off_diagonal(cosines(w))))
        assert values[f"welch/{name}"] == pytest.approx((10 - 8) / (8 * 9))
        assert values[f"norm/{name}"] == pytest.approx(np.linalg.norm(w, axis=1).mean())
        own = [w[i] @ w[i] / sum((w[i] @ v) ** 2 / (w[i] @ w[i]) for v in w) for i in range(10)]
        assert values[f"dimensionality/{name}"] == pytest.approx(np.mean(own))
        assert values[f"dimensionality_min/{name}"] == pytest.approx(min(own))
        assert values[f"dimensionality_max/{name}"] == pytest.approx(max(own))
    assert {tag.split("/", 1)[1] for tag in values} == {"embed.token", "head"}


def test_any_matrix_by_name_and_zero_vectors():
    net = GPT(SYMBOLS, depth=2, heads=2, width=WIDTH)
    torch.nn.init.zeros_(net.head.weight[3:])
    units = ["blocks.*.mlp.fc1", "head"]
    values, callback = measured(BP(net, NextToken()), units=units)
    names = {tag.split("/", 1)[1] for tag in values}
    assert names == {"blocks.0.mlp.fc1", "blocks.1.mlp.fc1", "head"}
    assert values["welch/head"] == 0  # three vectors in eight dimensions
    assert all(map(math.isfinite, values.values()))
    assert len(callback._shown) == 3
    torch.nn.init.zeros_(net.head.weight)
    values, _ = measured(BP(net, NextToken()), units=["head"])
    assert all(map(math.isnan, values.values()))


class Pairs(LightningModule):
    """A vector for each pair of symbols, tied to nothing."""

    def __init__(self, symbols=4):
        super().__init__()
        self.table = nn.Embedding(12, 5)
        self.out = nn.Linear(5, symbols, bias=False)

    def forward(self, x):
        return self.out(self.table(x[:, 0] * 4 + x[:, 1]))


def test_vectors_of_contexts_against_a_loop():
    torch.manual_seed(0)
    module, data = Pairs(), support.Data()
    values, callback = measured(module, data)
    _, prior, rows = data.contexts()
    vectors, u = (w.detach().double().numpy() for w in (module.table.weight, module.out.weight))
    cosine = nearest = 0.0
    for m in range(12):
        own = [vectors[m] @ v / np.linalg.norm(vectors[m]) / np.linalg.norm(v) for v in u]
        y = int(rows[m].argmax())
        cosine += float(prior[m]) * own[y]
        nearest += float(prior[m]) * (max(own) == own[y])
    assert values["target_cosine"] == pytest.approx(cosine)
    assert values["target_nearest"] == pytest.approx(nearest)
    assert 0 < nearest < 1
    assert values["cos2/contexts"] == pytest.approx(np.mean(off_diagonal(cosines(vectors))))
    order = rows.argmax(1).argsort(stable=True).numpy()
    np.testing.assert_allclose(callback._shown["contexts"].cosines, cosines(vectors[order]))
    bounds = callback.draw([{"step": 7, "epoch": 1, "name": "", "values": {}}], "").axes[0]
    names = [label.get_text() for label in bounds.get_yticklabels()]
    assert names == list(callback._shown)
    assert names[-1] == "contexts"


def test_a_tied_unembedding_is_found_by_both_names():
    net = GPT(SYMBOLS, depth=1, heads=2, width=WIDTH)
    net.head.weight = net.embed.token.weight
    values, _ = measured(BP(net, NextToken()))
    assert values["cos2/head"] == values["cos2/embed.token"]


def test_names_that_match_nothing():
    for options in ({"units": ["tail"]}, {"unembedding": "tail"}):
        with pytest.raises(ValueError, match=r"'tail' matches nothing.*out"):
            measured(Pairs(), **options)


def test_what_is_not_finite_is_not_left_out():
    module = Pairs()
    torch.nn.init.constant_(module.out.weight[0], torch.nan)
    values, _ = measured(module, units=["out"])
    assert all(math.isnan(values[f"{tag}/out"]) for tag in ("cos2", "norm", "dimensionality"))


def test_nearest_is_undefined_without_a_direction_and_regards_only_symbols_that_have_one():
    module, data = Pairs(), support.Data()
    target = torch.arange(12) % 3  # symbol 3 is never the likeliest
    rows = torch.full((12, 4), 0.1).scatter(1, target[:, None], 0.7)
    data.contexts = lambda: (*support.Data.contexts(data)[:2], rows)
    with torch.no_grad():
        module.out.weight.copy_(torch.eye(4, 5))
        module.table.weight.copy_(torch.eye(4, 5)[target])
        module.out.weight[3] = 0
    assert measured(module, data)[0]["target_nearest"] == pytest.approx(1)
    torch.nn.init.zeros_(module.out.weight)
    values, _ = measured(module, data)
    assert math.isnan(values["target_nearest"])
    assert math.isnan(values["target_cosine"])


def test_contexts_that_never_come_play_no_part():
    module, data = Pairs(), support.Data()
    x, prior, rows = data.contexts()
    prior = prior * (torch.arange(12) > 2)
    prior = prior / prior.sum()
    data.contexts = lambda: (x[3:], prior[3:], rows[3:])
    expected, _ = measured(module, data, units=["out"])
    data.contexts = lambda: (x, prior, rows)
    torch.nn.init.zeros_(module.table.weight[0])  # would make the mean NaN
    assert measured(module, data, units=["out"])[0] == pytest.approx(expected)
