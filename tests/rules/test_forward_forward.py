"""Forward-forward: the losses, a loop written by hand, both predictions, and what is refused."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms
from lit_credit.cli import main
from lit_credit.datamodules import Digits
from lit_credit.datamodules.tensor_loader import TensorLoader
from lit_credit.inspect.capture import Point, capture
from lit_credit.models import GPT, MLP, LeNet, ResidualMLP
from lit_credit.rules import ForwardForward
from lit_credit.tasks import Classification, NextToken, Task
from lit_credit.utils.random_state import generator_of
from tests.support import images, loader, quiet_trainer, same_state, seeded
from tests.support.configs import WITHOUT_DIAGNOSTICS


class Regression(Task):
    def inputs(self, batch):
        return (batch[0],)

    def target(self, batch):
        return batch[1]

    def metrics(self):
        return {}

    def loss(self, output, batch):
        return F.mse_loss(output, batch[1])


def mlp():
    return MLP(20, [8, 6, 7], num_classes=5)


def made(net=mlp, data=None, classes=5, **kwargs):
    """A rule whose heads are there, and are not zero."""
    rule = seeded(lambda: ForwardForward(net(), Classification(classes), **kwargs))
    rule.prepare(images(16) if data is None else data)
    generator = torch.Generator().manual_seed(4)
    for head in rule.heads.parameters():
        head.data.normal_(0, 0.3, generator=generator)
    return rule


# What a step computes, written sample by sample


def rms(rows):
    return rows / (rows.square().mean(1, keepdim=True) + 1e-8).sqrt()


def labelled(x, label, scale=1.0):
    x = x.clone()
    x[:, : label.shape[1]] = scale * label
    return rms(x)


def wrong(y, classes, step, seed=42):
    shift = torch.randint(1, classes, (len(y),), generator=generator_of(seed, step, 1))
    return (y + shift) % classes


def unit_loss(z, n, mean, threshold, peer):
    """The loss of one unit, from a loop over its samples, and its next mean activity."""
    total = 0.0
    for index, row in enumerate(z):
        p = torch.sigmoid(sum(entry**2 for entry in row) - threshold * len(row))
        total = total - torch.log(p if index < n else 1 - p) / (2 * n)
    mean = 0.9 * mean + 0.1 * sum(z[:n]) / n
    spread = sum((mean.sum() / len(mean) - entry) ** 2 for entry in mean) / len(mean)
    return total + peer * spread, mean.detach()


@pytest.mark.parametrize(("threshold", "peer"), [(1.0, 0.03), (0.5, 2.0), (1.0, 0.0)])
def test_the_scalar_and_the_credit_are_those_of_a_loop(threshold, peer):
    rule = made(threshold=threshold, peer_weight=peer, label_scale=2.0).double()
    x, y = images(16)
    x = x.double()
    credit = rule.eval().credit((x, y))
    before = [rule.activities[name].clone() for name in rule.units]
    loss, scalar = rule.train().surrogate((x, y))
    total = torch.zeros((), dtype=torch.double)
    h = torch.cat([labelled(x, F.one_hot(c, 5), 2.0) for c in (y, wrong(y, 5, 2))])
    for index, layer in enumerate(rule.net.layers):
        z = layer(h)
        z.retain_grad()
        found, mean = unit_loss(z, 16, before[index], threshold, peer)
        total = total + found
        if peer:
            torch.testing.assert_close(rule.activities[f"layers.{index}"], mean)
        h = rms(z.detach())
    neutral = rule(x)
    torch.testing.assert_close(loss, F.cross_entropy(neutral, y))
    torch.testing.assert_close(scalar, total + loss)
    trained = [p for p in rule.net.parameters() if p.requires_grad]
    for one, other in zip(
        torch.autograd.grad(scalar, trained, retain_graph=True),
        torch.autograd.grad(total, trained),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert [value.shape for value in credit.values()] == [(16, 8), (16, 6), (16, 7)]


def test_credit_is_the_gradient_on_positive_samples():
    rule = made().double().eval()
    x, y = images(16)
    credit = rule.credit((x.double(), y))
    h = torch.cat([labelled(x.double(), F.one_hot(c, 5)) for c in (y, wrong(y, 5, 1))])
    for index, layer in enumerate(rule.net.layers):
        z = layer(h).detach().requires_grad_()
        loss, _ = unit_loss(z, 16, rule.activities[f"layers.{index}"], 1.0, 0.03)
        (expected,) = torch.autograd.grad(loss, z)
        torch.testing.assert_close(credit[f"net.layers.{index}"], expected[:16])
        h = rms(z.detach())


def test_no_gradient_passes_between_units_nor_from_heads_to_units():
    rule = made()
    losses = rule._unit_losses(rule._run_pairs(images(16)).outputs, learns=False)
    for name, loss in losses.items():
        own = set(rule.net.get_submodule(name).parameters())
        named = [p for p in rule.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, named, allow_unused=True, retain_graph=True)
        assert {p for p, g in zip(named, found, strict=True) if g is not None} == own
    loss, _ = rule.surrogate(images(16))
    units = list(rule.net.layers.parameters())
    assert all(g is None for g in torch.autograd.grad(loss, units, allow_unused=True))


def test_wrong_classes_are_uniform_and_never_the_right_one():
    rule = made()
    classes = torch.zeros(4000, dtype=torch.long)
    counts = torch.bincount(rule._wrong(classes), minlength=5)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 150


def test_yaml_equals_the_loop_after_20_steps(tmp_path):
    args = ["fit", "--config", "configs/rules/forward_forward.yaml"]
    args += ["--config", str(WITHOUT_DIAGNOSTICS), "--trainer.max_steps", "20"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    assert main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    (saved,) = tmp_path.rglob("last.ckpt")
    trained = torch.load(saved, weights_only=True)["state_dict"]

    net = seeded(lambda: MLP(64, [256, 256]))
    head = torch.zeros(10, 256, requires_grad=True)
    means = [torch.full((256,), 0.5), torch.full((256,), 0.5)]
    groups = [{"params": net.layers.parameters()}, {"params": [head], "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    batches = list(Digits(batch_size=64, seed=42, val_split=0).train_dataloader())[:20]
    for step, (x, y) in enumerate(batches):
        x, n = x.flatten(1), len(y)
        with torch.no_grad():
            h = labelled(x, torch.full((n, 10), 0.1))
            for layer in net.layers:
                h = rms(layer(h))
        loss = F.cross_entropy(h @ head.T, y)
        h = torch.cat([labelled(x, F.one_hot(c, 10)) for c in (y, wrong(y, 10, step))])
        truth = torch.cat([torch.ones(n), torch.zeros(n)])
        for index, layer in enumerate(net.layers):
            z = layer(h)
            logits = z.square().sum(1) - 256
            mean = 0.9 * means[index] + 0.1 * z[:n].mean(0)
            loss = loss + F.binary_cross_entropy_with_logits(logits, truth)
            loss = loss + 0.03 * (mean - mean.mean()).square().mean()
            means[index], h = mean.detach(), rms(z.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = {f"net.{name}": value for name, value in net.state_dict().items()}
    expected |= {f"activities.mean_{i}": mean for i, mean in enumerate(means)}
    expected["heads.pred_weight_1"] = head.detach()
    assert trained.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, atol=1e-5, rtol=0, msg=name)


# Prediction


def by_goodness(rule, x):
    logits = torch.zeros(len(x), 5)
    for label in range(5):
        h = labelled(x, F.one_hot(torch.full((len(x),), label), 5))
        for index, layer in enumerate(rule.net.layers):
            z = layer(h)
            logits[:, label] += z.square().sum(1) * (index > 0)
            h = rms(z)
    return logits


def test_goodness_predicts_as_a_loop_over_labels():
    rule = made(prediction="goodness")
    x, y = images(16)
    expected = by_goodness(rule, x)
    torch.testing.assert_close(rule(x), expected)
    torch.testing.assert_close(rule.batch_loss((x, y)), F.cross_entropy(expected, y))
    torch.testing.assert_close(rule.predict_step((x, y), 0), expected)
    data = TensorLoader((x, y), 16, shuffle=False)
    (logged,) = quiet_trainer().validate(rule, data, verbose=False)
    right = (expected.argmax(1) == y).float().mean().item()
    assert logged["val/accuracy"] == pytest.approx(right)


def test_the_head_predicts_from_all_units_but_the_first():
    rule = made()
    h = labelled(images(16)[0], torch.full((16, 5), 0.2))
    expected = torch.zeros(16, 5)
    for index, layer in enumerate(rule.net.layers):
        h = rms(layer(h))
        if index:
            expected = expected + h @ getattr(rule.heads, f"pred_weight_{index}").T
    torch.testing.assert_close(rule(images(16)[0]), expected)
    assert [*dict(rule.heads.named_parameters())] == ["pred_weight_1", "pred_weight_2"]
    only = made(lambda: MLP(20, [8], num_classes=5))
    assert [*dict(only.heads.named_parameters())] == ["pred_weight_0"]


@pytest.mark.parametrize("prediction", ["head", "goodness"])
def test_exact_gradients_are_taken_at_the_outputs_before_the_norm(prediction):
    rule = made(prediction=prediction).eval()
    x, y = images(16)
    points = [Point(name, "output") for name in rule.credit_units]
    with capture(rule, points) as found:
        loss = rule.batch_loss((x, y))
    gradients = torch.autograd.grad(loss, [found[point] for point in points])
    first = labelled(x, F.one_hot(y, 5) if prediction == "goodness" else torch.full((16, 5), 0.2))
    torch.testing.assert_close(found[points[0]], rule.net.layers[0](first))
    assert all(gradient.any() for gradient in gradients)
    for gradient, point in zip(gradients[:1], points[:1], strict=True):
        # The size of what a unit hands on is gone.
        along = (gradient * found[point]).sum(1)
        assert along.abs().max() < 1e-5


# Training


def fit(rule, folder, steps, ckpt_path=None, **kwargs):
    trainer = quiet_trainer(max_steps=steps, default_root_dir=folder, **kwargs)
    trainer.fit(rule, loader(), loader(n=32), ckpt_path=ckpt_path)
    return trainer


def make(**options):
    return ForwardForward(mlp(), Classification(5), **options)


def test_the_nets_readout_stays_as_it_was_and_so_do_its_names(tmp_path):
    rule = seeded(make)
    start = {name: value.clone() for name, value in rule.net.state_dict().items()}
    trainer = fit(rule, tmp_path, 6)
    assert rule.net.state_dict().keys() == mlp().state_dict().keys()
    for name, value in rule.net.state_dict().items():
        assert torch.equal(value, start[name]) == name.startswith("head.")
    assert [group["name"] for group in trainer.optimizers[0].param_groups] == ["units", "heads"]


def test_a_run_resumes_bit_exactly_and_loads_without_a_trainer(tmp_path):
    whole = seeded(make)
    checkpoint = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=9, save_top_k=-1)
    fit(whole, tmp_path, 14, callbacks=[checkpoint], enable_checkpointing=True)
    saved = tmp_path / "step=9.ckpt"
    resumed = seeded(make, seed=7)
    fit(resumed, tmp_path, 14, ckpt_path=saved)
    assert same_state(whole, resumed)
    loaded = ForwardForward.load_from_checkpoint(saved, net=mlp(), task=Classification(5))
    stored = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(stored[name], value) for name, value in loaded.state_dict().items())
    data = TensorLoader(images(16), 16, shuffle=False)
    quiet_trainer().validate(loaded, data, verbose=False)
    (answers,) = quiet_trainer().predict(loaded, data)
    torch.testing.assert_close(answers, loaded(images(16)[0]))


def test_diagnostics_measure_it_and_change_nothing(tmp_path):
    def net():
        return ResidualMLP(20, width=8, depth=2, num_classes=5)

    def rule():
        return ForwardForward(net(), Classification(5))

    plain, watched = seeded(rule), seeded(rule)
    fit(plain, tmp_path / "plain", 8)
    watches = [
        *(watch(figure=False) for watch in (GradientNorms, ResidualNorms)),
        CreditAlignment(figure=False, mode="train", every_n_steps=2),
    ]
    fit(watched, tmp_path, 8, callbacks=watches)
    assert same_state(plain, watched)
    assert {path.stem for path in tmp_path.rglob("*.jsonl")} >= {
        "credit_alignment",
        "gradient_norms",
        "residual_norms",
    }
    values = watches[-1].history.rows[-1]["values"]
    assert all(abs(values[f"credit/cosine/L0{index}"]) <= 1 for index in range(3))


def test_evaluation_and_credit_leave_the_mean_activities():
    rule = made()
    before = [rule.activities[name].clone() for name in rule.units]
    rule.credit(images(16))
    rule.eval().surrogate(images(16))
    rule(images(16)[0])
    assert all(map(torch.equal, before, [rule.activities[name] for name in rule.units]))


@pytest.mark.filterwarnings("ignore")
def test_training_in_bf16_is_about_that_in_float32(tmp_path):
    rules = [seeded(make), seeded(make)]
    fit(rules[0], tmp_path, 6, precision="bf16-mixed")
    fit(rules[1], tmp_path, 6)
    for name, value in rules[1].state_dict().items():
        assert rules[0].state_dict()[name].dtype == value.dtype
        torch.testing.assert_close(rules[0].state_dict()[name], value, atol=2e-2, rtol=0, msg=name)


# Nets


def learns(rule, data, steps=40):
    optimizer = torch.optim.Adam([p for p in rule.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, scalar = rule.surrogate(data)
        scalar.backward()
        optimizer.step()
        losses.append((loss.item(), scalar.item()))
    assert losses[-1][0] < 0.8 * losses[0][0]
    assert losses[-1][1] < 0.8 * losses[0][1]
    assert all(p.grad is not None for p in rule.parameters() if p.requires_grad)


def test_a_residual_net_learns():
    learns(made(lambda: ResidualMLP(20, width=16, depth=2, num_classes=5)), images(16))


def pictures(n=16):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 1, 28, 28, generator=generator), torch.arange(n) % 10


def test_lenet_learns_and_predicts_both_ways():
    rule = made(LeNet, pictures(), classes=10)
    assert rule.activities["convolutions.0"].shape == (6, 14, 14)
    learns(rule, pictures())
    rule.prediction = "goodness"
    assert rule(pictures()[0]).shape == (16, 10)


class Functional(nn.Module):
    """A net with activations that are functions."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(20, 8), nn.Linear(8, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def test_units_that_end_at_inputs_have_unit_rms_behind_their_end():
    rule = made(Functional, units=["fc1->", "fc2->"], readout=["fc3"])
    assert not rule.net.fc3.weight.requires_grad
    h = labelled(images(16)[0], torch.full((16, 5), 0.2))
    for layer in (rule.net.fc1, rule.net.fc2):
        h = rms(F.relu(layer(h)))
    torch.testing.assert_close(rule(images(16)[0]), h @ rule.heads.pred_weight_1.T)
    learns(rule, images(16))


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0.0}, "`threshold`.*above 0"),
        ({"peer_momentum": 1.0}, "`peer_momentum`.*below 1"),
        ({"prediction": "readout"}, "`prediction`.*'head' or 'goodness'"),
        ({"readout": []}, "head.*`stray`.*freeze"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        make(**options)


def refused(net, task, data, words):
    rule = ForwardForward(net, task)
    trainer = quiet_trainer(max_steps=1)
    with pytest.raises(ValueError, match=words):
        trainer.fit(rule, TensorLoader(data, 8))
    assert trainer.global_step == 0
    assert not trainer.optimizers


def test_what_does_not_fit_is_refused_before_the_first_step():
    x, y = images(16)
    gpt = GPT(vocab_size=7, block_size=6, depth=1, heads=2, width=8)
    tokens = torch.arange(96).reshape(16, 6) % 7
    refused(gpt, NextToken(), (tokens, tokens), r"int64.*floating-point.*LocalLosses")
    refused(mlp(), Regression(), (x, torch.randn(16, 5)), r"one class per sample.*\(8,\)")
    refused(MLP(4, [8], 5), Classification(5), (x[:, :4], y), r"less than the 5 entries")
    refused(MLP(20, [8], 1), Classification(1), (x, y * 0), r"at least two classes")


def test_without_heads_it_predicts_nothing():
    with pytest.raises(ValueError, match=r"no head yet.*`prepare"):
        make()(images(16)[0])


def test_classes_to_leave_out_are_refused_before_training():
    x, y = images()
    y[0] = -100
    with pytest.raises(ValueError, match="classes begin at -100"):
        ForwardForward(MLP(20, [8, 6], 5), Classification(5)).prepare((x, y))


def test_outputs_of_another_size_are_explained():
    class Mean(MLP):
        def forward(self, x):
            return self.head(self.layers[1](self.layers[0](x)).mean(1))

    rule = ForwardForward(Mean(4, [8, 6], 5), Classification(5))
    y = torch.arange(8) % 5
    rule.prepare((torch.randn(8, 5, 4), y))
    rule.surrogate((torch.randn(8, 5, 4), y))
    with pytest.raises(ValueError, match="outputs of one size"):
        rule.surrogate((torch.randn(8, 7, 4), y))
