"""LayerProbes against a twin in numpy, on separable data, and on every form of targets."""

import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import LayerProbes
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.representations import probe_targets
from lit_credit.callbacks.representations.layer_probes_figure import layer_probes_figure
from lit_credit.callbacks.representations.unit_features import features, rows_for
from lit_credit.models import GPT
from lit_credit.rules import BP, DFA
from lit_credit.tasks import NextToken
from tests import support
from tests.callbacks import twin

N = 40


class Foreign(LightningModule):
    """Runs units one after the other on the first part of a batch."""

    def __init__(self, *units):
        super().__init__()
        self.units = nn.ModuleList(units)

    def run_batch(self, batch):
        h = batch["x"] if isinstance(batch, dict) else batch[0]
        for unit in self.units:
            h = unit(h)
        return h


def measured(module, *batches, **options):
    """The values of chunks of these batches; all units of a foreign module."""
    if isinstance(module, Foreign):
        options = {"units": ["units.*"]} | options
    callback = LayerProbes(**options)
    module.eval()
    callback.prepare(support.trainer(None, logger=False), module)
    total = sum(len(batch[0]) for batch in batches if isinstance(batch, tuple)) or 1
    chunks = [
        Chunk(module, batch, len(batch[0]), len(batch[0]) / total)
        if isinstance(batch, tuple)
        else Chunk(module, batch)
        for batch in batches
    ]
    return callback.measure(module, chunks)


def first_half(rows):
    """The rows that probes are fitted on."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return sorted(order[: rows // 2].tolist())


def slow_predictions(x, y, rows, strength=0.1):
    """Predictions for all rows of a ridge regression on some of them, in numpy."""
    x, y = x.double().numpy(), y.double().numpy()
    mean, sd = x[rows].mean(0), x[rows].std(0)
    z = np.where(sd > 0, (x - mean) / np.where(sd > 0, sd, 1), 0)
    a, b = z[rows], y[rows] - y[rows].mean(0)
    inverse = np.linalg.inv(a.T @ a / len(rows) + strength * np.eye(a.shape[1]))
    return z @ inverse @ a.T @ b / len(rows) + y[rows].mean(0)


def slow_accuracy(x, labels, strength=0.1):
    rows, classes = first_half(len(x)), int(labels.max()) + 1
    found = slow_predictions(x, torch.eye(classes)[labels], rows, strength).argmax(1)
    return np.mean([found[i] == int(labels[i]) for i in range(len(x)) if i not in rows])


@pytest.mark.parametrize("rule", [BP, DFA])
@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_of_a_rule_against_numpy(rule, strength):
    module, (x, y) = twin.make(rule), twin.batch(N)
    values = measured(module, (x, y), ridge=strength)
    stream, added, logits = twin.run(twin.parameters(module), x)
    expected = [slow_accuracy(h.detach(), y, strength) for h in added]
    found = [values[f"accuracy/L{i:02d}"] for i in range(len(added))]
    assert found == pytest.approx(expected)
    tested = [i for i in range(N) if i not in first_half(N)]
    right = (logits.argmax(1) == y)[tested].double().mean()
    assert values["accuracy_net"] == pytest.approx(float(right))
    assert values["accuracy_best"] == max(found)
    along = measured(module, (x, y), ridge=strength, read="stream")
    expected = [slow_accuracy(h.detach(), y, strength) for h in stream]
    assert [along[f"accuracy/L{i:02d}"] for i in range(len(stream))] == pytest.approx(expected)


def test_separable_by_construction():
    """The label is in the input, is lost in the second unit, and is not read off constants."""
    y = torch.arange(N) % 4
    x = torch.cat([4.0 * F.one_hot(y, 4), support.tensors(N)[0]], 1)

    class Keep(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, h):
            return h[:, self.part]

    lost, constant = Keep(slice(4, 6)), nn.Threshold(1e9, 0.0)
    values = measured(Foreign(nn.Identity(), lost, constant), (x, y))
    assert values["accuracy/L00"] == values["accuracy_best"] == 1
    assert values["accuracy/L01"] < 0.6
    assert values["accuracy/L02"] == values["accuracy_chance"] < 0.4
    assert "accuracy_net" not in values


@pytest.mark.parametrize("width", [5, 60])  # sums, and rows as they are
@pytest.mark.parametrize("sizes", [[N], [16, 16, 8], [1] * N])
def test_chunks_do_not_matter(width, sizes):
    torch.manual_seed(0)
    module = Foreign(nn.Linear(12, width), nn.Tanh())
    data = support.tensors(N)
    expected = measured(module, data)
    parts = zip(*(part.split(sizes) for part in data), strict=True)
    assert measured(module, *parts) == pytest.approx(expected, nan_ok=True)
    with torch.no_grad():
        h = module.units[0](data[0])
    assert expected["accuracy/L00"] == pytest.approx(slow_accuracy(h, data[1]))


def test_numbers_are_regressed_on():
    torch.manual_seed(0)
    x = torch.randn(N, 12)
    y = torch.stack([x[:, 0] + 0.1 * torch.randn(N), torch.randn(N), torch.ones(N)], 1)
    values = measured(Foreign(nn.Identity()), (x, y))
    rows = first_half(N)
    tested = [i for i in range(N) if i not in rows]
    found, expected = slow_predictions(x, y, rows), []
    for c in range(2):  # the third does not vary
        truth = y[tested, c].double().numpy()
        error = ((found[tested, c] - truth) ** 2).sum()
        expected.append(1 - error / ((truth - truth.mean()) ** 2).sum())
    assert expected[0] > 0.5 > expected[1]
    assert values == {
        "r2/L00": pytest.approx(np.mean(expected)),
        "r2_best": pytest.approx(np.mean(expected)),
    }
    # One number a sample is one column.
    one = measured(Foreign(nn.Identity()), (x, y[:, 0]))
    assert one == measured(Foreign(nn.Identity()), (x, y[:, :1]))
    assert one["r2/L00"] == pytest.approx(expected[0])


def test_distributions_count_by_their_likeliest_class():
    x, y = support.tensors(N)
    soft = 0.9 * F.one_hot(y, 4) + 0.025
    module = Foreign(nn.Tanh())
    assert (
        measured(module, (x, soft)) == measured(module, (x, y)) == measured(module, (x, y[:, None]))
    )


def tokens(rows=12, positions=6, symbols=7):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(symbols, (2, rows, positions), generator=generator))


def test_next_tokens_are_read_off_each_position():
    torch.manual_seed(0)
    net = GPT(7, 6, depth=2, heads=2, width=8)
    module, (x, y) = BP(net, NextToken()), tokens()
    y = torch.where(torch.arange(12)[:, None] == 3, -100, y)  # a row without targets
    values = measured(module, (x, y))
    names = list(module.credit_units)
    points = dict.fromkeys(names)
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda *a, name=name: points.__setitem__(name, a[2].detach().flatten(0, 1))
        )
        for name in names
    ]
    module.eval()(x)
    [handle.remove() for handle in handles]
    half = first_half(12)
    labels = y.flatten()
    rows = [i for i in range(72) if i // 6 in half and labels[i] >= 0]
    tested = [i for i in range(72) if i // 6 not in half and labels[i] >= 0]
    one_hot = torch.eye(7)[labels.clamp(min=0)]
    for index, name in enumerate(names):
        found = slow_predictions(points[name], one_hot, rows).argmax(1)
        expected = np.mean([found[i] == int(labels[i]) for i in tested])
        assert values[f"accuracy/L{index:02d}"] == pytest.approx(expected), name


def test_labels_of_hugging_face_are_shifted():
    torch.manual_seed(0)
    module = Foreign(nn.Embedding(7, 4))
    x, _ = tokens()
    shifted = F.pad(x[:, 1:], (0, 1), value=-100)
    own = measured(module, {"x": x, "input_ids": x, "labels": x})
    assert own == measured(module, {"x": x, "target": shifted})
    assert own != measured(module, {"x": x, "target": x})


def third(batch):
    return batch[2]


def test_labels_by_key_and_by_function():
    (x, y), module = support.tensors(N), Foreign(nn.Tanh())
    other = (y + 1) % 4 * (torch.arange(N) % 3 > 0)
    plain = measured(module, (x, other))
    assert plain != measured(module, (x, y))
    assert measured(module, {"x": x, "species": other, "y": y}, labels="species") == plain
    assert measured(module, (x, y, other), labels=third) == plain
    assert measured(module, (x, y, other), labels=lambda batch: batch[2].numpy()) == plain
    key = LayerProbes(labels=third).state_key
    assert f"{third.__module__}.third" in key
    assert key != LayerProbes().state_key


class Sum(nn.Module):
    def forward(self, h):
        return h.sum()


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ((torch.ones(6, 2),), {}, r"no target in the batches of Foreign.*Set `labels`"),
        ({"x": torch.ones(6, 2)}, {"labels": "a"}, "no labels 'a' in the batches"),
        ((torch.ones(6, 2), None), {"labels": third}, "out of range|index"),
        ((torch.ones(6, 2), 3), {"labels": lambda b: b[1]}, r"no tensor of labels by `labels`"),
        ((torch.ones(6, 2), torch.ones(5).long()), {}, r"targets have shape \(5,\).*units.0"),
    ],
)
def test_batches_without_targets_for_the_rows(batch, options, message):
    with pytest.raises((MisconfigurationException, IndexError), match=message):
        measured(Foreign(nn.Identity()), batch, **options)


@pytest.mark.parametrize("labels", [3, "", ["y"], lambda: None, lambda a, b: None])
def test_labels_that_are_no_key_and_no_function(labels):
    with pytest.raises(ValueError, match=r"`labels` is .*a key of the batch, or a function"):
        LayerProbes(labels=labels)


def test_a_unit_of_another_shape_is_undefined_and_the_others_are_not():
    class Both(Foreign):
        def run_batch(self, batch):
            self.units[1](batch[0].mT)
            return self.units[0](batch[0])

    module = Both(nn.Tanh(), nn.Tanh())
    with pytest.warns(UserWarning, match=r"no row for each of them.*units.1 \(12, 40\)"):
        values = measured(module, support.tensors(N))
    assert math.isnan(values["accuracy/L01"])
    assert values["accuracy_best"] == values["accuracy/L00"] > 0


def test_more_classes_than_are_told_apart(monkeypatch):
    monkeypatch.setattr(probe_targets, "MOST_CLASSES", 2)
    y = torch.tensor([0] * 20 + [1] * 14 + [2] * 6)
    x = F.one_hot(y, 3).float()
    values = measured(Foreign(nn.Identity()), (x, y))
    tested = [i for i in range(N) if i not in first_half(N)]
    assert values["accuracy/L00"] == pytest.approx(float((y[tested] < 2).double().mean()))


def test_a_single_row_has_no_probe():
    values = measured(Foreign(nn.Tanh()), tuple(part[:1] for part in support.tensors(N)))
    assert all(math.isnan(value) for value in values.values())


def test_features_are_averaged_over_neighbours_to_fit():
    image = torch.randn(3, 6, 28, 20)
    assert features(image, 10**6).equal(image.flatten(1))
    expected = F.adaptive_avg_pool2d(image, (12, 8)).flatten(1)
    torch.testing.assert_close(features(image, 600), expected)
    torch.testing.assert_close(features(image, 6), image.mean((2, 3)))
    last = torch.randn(2, 7, 7, 96)
    torch.testing.assert_close(features(last, 96), last.mean((1, 2)))
    sequence = torch.randn(2, 8, 5)
    found = features(sequence, 20).reshape(2, 5, 4)  # channels, segments
    torch.testing.assert_close(found, sequence.reshape(2, 4, 2, 5).mean(2).mT)
    assert features(torch.randn(2, 9), 4).shape == (2, 9)


def test_rows_for_targets_at_positions():
    value = torch.randn(2, 5, 3)
    assert rows_for(value, (2, 5)).equal(value.flatten(0, 1))
    assert rows_for(value.mT, (2, 5)).equal(value.flatten(0, 1))
    assert rows_for(value.flatten(0, 1), (2, 5)).equal(value.flatten(0, 1))
    assert rows_for(value, (2,)).equal(value)
    assert rows_for(value, (5,)) is None
    assert rows_for(value[..., 0], (2, 5)) is None  # features that are as many as the labels
    image = torch.randn(2, 3, 4, 6)
    assert rows_for(image, (2, 4, 6)).equal(image.permute(0, 2, 3, 1).reshape(-1, 3))


def test_the_figure_has_the_ends_chance_and_the_net():
    def row(epoch, values):
        tags = {f"probe/accuracy/L{i:02d}": v for i, v in enumerate(values)}
        more = {"probe/accuracy_chance": 0.1, "probe/accuracy_net": 0.9}
        return {"step": epoch, "epoch": epoch, "name": "layer_probes", "values": tags | more}

    rows = [row(0, [0.5, 0.4]), row(1, [0.5, 0.6]), row(2, [0.5, 0.8])]
    ax = layer_probes_figure(rows, "probe", ["embed", "block"]).axes[0]
    texts = {text.get_text() for text in ax.texts}
    assert texts == {"epoch 0", "epoch 2", "chance", "the net itself"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["embed", "block"]
