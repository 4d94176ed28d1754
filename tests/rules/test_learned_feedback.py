"""What must hold of rules whose feedback matrices learn, in float64."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.nn import functional as F

from lit_credit.feedback.learned import feedback_parameters
from lit_credit.models import MLP
from lit_credit.rules import BP, FA, FDFA, DirectKolenPollack, KolenPollack, WeightMirror
from lit_credit.tasks import Classification
from tests.support import gradients, images, loader, quiet_trainer, seeded


def mlp():
    return MLP(20, [16, 12], num_classes=5, activation="tanh").double()


def linear_net():
    return MLP(20, [8, 6], num_classes=5, activation="identity").double()


def batch():
    x, y = images()
    return x.double(), y


def rule(kind, net=mlp, **kwargs):
    return seeded(lambda: kind(net(), Classification(5), **kwargs))


def sgd(**kwargs):
    return lambda groups: torch.optim.SGD(groups, **kwargs)


def train(r, steps, data=None):
    """Updates without a Trainer, in the order of ``CreditRule.update``."""
    optimizer = r.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        _, scalar = r.surrogate(data or batch())
        scalar.backward()
        r.on_before_optimizer_step(optimizer)
        optimizer.step()
    return r


def differences(r):
    """W - B of each layer."""
    return [
        (pair.weight - pair.feedback).detach().clone() for pair in r.feedback_matrices().values()
    ]


def weights(r):
    return {n: p.detach().clone() for n, p in r.net.named_parameters() if "feedback" not in n}


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# Kolen-Pollack


CLIPPED = [{}, {"clip_norm": 0.1}, {"clip_per_unit": 0.05}]


@pytest.mark.parametrize("clipping", CLIPPED, ids=str)
def test_under_sgd_the_weights_and_the_matrices_of_kolen_pollack_take_the_same_steps(clipping):
    r = rule(KolenPollack, optimizer=sgd(lr=0.1, momentum=0.9), **clipping)
    start, before = differences(r), weights(r)
    train(r, 20)
    assert_close(differences(r), start)
    assert all(not torch.equal(value, before[name]) for name, value in weights(r).items())


@pytest.mark.parametrize("clipping", CLIPPED, ids=str)
def test_the_first_step_of_kolen_pollack_is_that_of_feedback_alignment(clipping):
    trained = [
        weights(train(rule(kind, optimizer=sgd(lr=0.1), **clipping), 1))
        for kind in (FA, KolenPollack)
    ]
    assert_close(trained[1], trained[0])
    # Clipping has done something: else the two would be equal whatever it did to B.
    if clipping:
        plain = weights(train(rule(FA, optimizer=sgd(lr=0.1)), 1))
        assert not torch.allclose(plain["layers.0.0.weight"], trained[0]["layers.0.0.weight"])


def decayed(kind, **kwargs):
    return lambda groups: kind(groups, lr=0.02, weight_decay=0.5, **kwargs)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_decay_beside_the_gradient_brings_weights_and_matrices_together(kind):
    r = rule(KolenPollack, optimizer=decayed(kind))
    start = differences(r)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="KolenPollack")
        train(r, 20)
    assert_close(differences(r), [value * (1 - 0.02 * 0.5) ** 20 for value in start])


def test_decay_inside_the_gradient_of_adam_does_not_and_a_warning_says_so():
    r = rule(KolenPollack, optimizer=decayed(torch.optim.Adam))
    start = differences(r)
    with pytest.warns(UserWarning, match="Adam adds `weight_decay` to the gradient"):
        train(r, 20)
    for found, value in zip(differences(r), start, strict=True):
        assert not torch.allclose(found, value * (1 - 0.02 * 0.5) ** 20, rtol=1e-2)


def test_kolen_pollack_that_starts_at_the_weights_is_bp_for_ever():
    optimizer = decayed(torch.optim.AdamW)
    found = weights(train(rule(KolenPollack, optimizer=optimizer, feedback="weight"), 20))
    assert_close(found, weights(train(rule(BP, optimizer=optimizer), 20)))


def test_a_checkpoint_of_fa_loads_into_kolen_pollack():
    fa, kp = rule(FA, feedback_seed=3), rule(KolenPollack, feedback_seed=4)
    kp.load_state_dict(fa.state_dict())
    assert_close(kp.state_dict(), fa.state_dict())
    found, expected = gradients(kp, batch()), gradients(fa, batch())
    assert_close({name: found[name] for name in expected}, expected)


class Tied(nn.Module):
    credit_units = ("a", "b")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(x).tanh()).tanh())


class Convolutions(nn.Module):
    credit_units = ("conv",)
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2, stride=2)
        self.next = nn.Conv1d(3, 4, 3, groups=1)
        self.head = nn.Linear(4 * 3, 5)

    def forward(self, x):
        maps = self.conv(x.unflatten(1, (1, 4, 5))).tanh().flatten(2)[..., :4]
        return self.head(F.pad(self.next(maps).tanh(), (0, 1)).flatten(1))


class Attending(nn.Module):
    credit_units = ("attention",)
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = x.unflatten(1, (5, 4))
        return self.head(self.attention(x, x, x, need_weights=False)[0].flatten(1))


class Transposed(nn.Module):
    credit_units = ("a",)
    readout = ("head",)

    def __init__(self):
        super().__init__()
        conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
        self.a, self.b, self.head = conv1d(8, 20), conv1d(6, 8), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.b(self.a(x).tanh()).tanh())


@pytest.mark.parametrize("net", [Tied, Convolutions, Attending, Transposed])
def test_matrices_get_the_gradients_of_their_weights(net):
    r = rule(KolenPollack, lambda: net().double())
    _, scalar = r.surrogate(batch())
    scalar.backward()
    named = dict(r.net.named_parameters())
    learned = feedback_parameters(r.net)
    assert learned
    for name, matrix in learned.items():
        weight = named[name.replace("feedback", "weight")]
        assert weight.grad.abs().max() > 0
        assert_close(matrix.grad, weight.grad)


def test_layers_that_share_a_weight_share_a_matrix_that_learns():
    r = rule(KolenPollack, lambda: Tied().double())
    assert r.net.a.feedback is r.net.b.feedback
    assert len(feedback_parameters(r.net)) == 2


# Weight mirror


class AtTheFirstBatch(Callback):
    """What the mirror's phase before training has left."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        if trainer.global_step == 0:
            self.weights = weights(pl_module)
            self.angles = [
                F.cosine_similarity(w.flatten(), b.flatten(), dim=0).arccos().rad2deg().item()
                for b, w in pl_module.feedback_matrices().values()
            ]


def mirror(batches):
    probe = AtTheFirstBatch()
    r = rule(
        WeightMirror,
        lambda: mlp().float(),
        optimizer=sgd(lr=0.05),
        mirror_batches=batches,
        feedback_seed=0,
    )
    before = weights(r)
    trainer = quiet_trainer(max_steps=2, callbacks=[probe])
    trainer.fit(r, loader())
    assert trainer.global_step == 2
    torch.testing.assert_close(probe.weights, before, rtol=0, atol=0)
    return probe.angles


def test_noise_alone_turns_the_matrices_of_weight_mirror_to_the_weights():
    before, after = mirror(0), mirror(200)
    assert min(before) > 45
    assert max(after) < 10


def test_a_weight_mirror_decays_its_matrices_to_the_weights_over_the_decay():
    r = rule(WeightMirror, optimizer=sgd(lr=0.0), mirror_decay=4.0, mirror_samples=2000,
             group_options={"feedback": {"lr": 0.02}})  # fmt: skip
    train(r, 100)
    for matrix, weight in r.feedback_matrices().values():
        assert (4 * matrix - weight).norm() < 0.1 * weight.norm()


# Forward direct feedback alignment


def test_on_a_linear_net_the_matrices_of_fdfa_become_the_jacobian():
    x, y = images(960)
    data = (x.double(), y)
    r = rule(FDFA, linear_net, optimizer=sgd(lr=0.0), group_options={"feedback": {"lr": 0.05}})
    r.prepare(data)
    train(r, 200, data)
    head, second = r.net.head.weight, r.net.layers[1][0].weight
    jacobians = [(head @ second).T, head.T]  # of the output by the output of each unit
    for found, expected in zip(r.feedback.matrix.split([8, 6]), jacobians, strict=True):
        assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.999
        assert abs(found.norm() / expected.norm() - 1) < 0.03


class Normed(nn.Module):
    credit_units = ("body",)
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x))


def test_the_second_pass_of_fdfa_leaves_buffers_and_random_numbers_alone():
    r = rule(FDFA, lambda: Normed().double())
    r.prepare(batch())
    assert r.net.body[1].num_batches_tracked == 0
    state = torch.get_rng_state()
    r.surrogate(batch())
    assert torch.equal(torch.get_rng_state(), state)
    norm = r.net.body[1]
    assert norm.num_batches_tracked == 1
    assert_close(norm.running_mean, 0.1 * r.net.body[0](batch()[0]).mean(0).detach())


# Direct Kolen-Pollack


def test_the_matrices_of_direct_kolen_pollack_get_activity_times_error():
    x, y = batch()
    r = rule(DirectKolenPollack)
    r.prepare((x, y))
    r.surrogate((x, y))[1].backward()
    hidden = [r.net.layers[0](x)]
    hidden.append(r.net.layers[1](hidden[0]))
    error = (r.net.head(hidden[1]).softmax(1) - F.one_hot(y, 5)) / len(x)
    found = r.learned_matrix().grad.double().split([16, 12])  # B is in float32
    torch.testing.assert_close(found[1], r.net.head.weight.grad.T, rtol=1e-5, atol=1e-8)
    for gradient, h in zip(found, hidden, strict=True):
        torch.testing.assert_close(gradient, (h.T @ error).detach(), rtol=1e-5, atol=1e-8)


def test_the_readout_of_direct_kolen_pollack_learns_alone_in_the_first_step():
    r = rule(DirectKolenPollack, optimizer=sgd(lr=0.1))
    r.prepare(batch())
    before = weights(r)
    train(r, 1)
    moved = {name for name, value in weights(r).items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}
    train(r, 1)
    assert not torch.equal(weights(r)["layers.0.0.weight"], before["layers.0.0.weight"])


def test_feedback_of_a_frozen_weight_stays():
    net = MLP(20, [16], num_classes=5)
    net.layers[0][0].weight.requires_grad_(False)
    rule = KolenPollack(net, Classification(5), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    before = net.layers[0][0].feedback.clone()
    optimizer = rule.configure_optimizers()
    rule.surrogate(images(8))[1].backward()
    optimizer.step()
    assert torch.equal(net.layers[0][0].feedback, before)
    assert net.head.feedback.grad is not None


def test_fdfa_trains_a_net_with_batch_norm():
    net = MLP(20, [16], num_classes=5, norm="batch")
    rule = FDFA(net, Classification(5))
    rule.prepare(images(8))
    rule.surrogate(images(8))[1].backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert int(net.layers[0][1].num_batches_tracked) == 1


def test_weight_averaging_keeps_feedback_that_learns(tmp_path):
    rule = DirectKolenPollack(MLP(20, [16], num_classes=5), Classification(5))
    trainer = quiet_trainer(max_epochs=1, callbacks=[EMAWeightAveraging()])
    trainer.fit(rule, loader())
    path = tmp_path / "ema.ckpt"
    trainer.save_checkpoint(path)
    assert "feedback.matrix" in torch.load(path, weights_only=True)["state_dict"]
