"""Rules of several passes from YAML against loops written by hand, of formulas alone."""

import json

import pytest
import torch
from torch.nn import functional as F

from lit_credit.datamodules import Digits
from lit_credit.feedback import derive_seed, draw_feedback
from lit_credit.models import MLP
from lit_credit.utils.random_state import generator_of
from tests.rules.test_reference_loops import SEED, STEPS, linears, step, trained_from_yaml
from tests.support import seeded


def layers_of(net):
    """Weights and biases, transposed as rows meet them."""
    return [(layer.weight, layer.bias) for layer in linears(net)]


def forward(net, x):
    """``h_0 .. h_2``, the slopes f' of the hidden layers, and the logits."""
    (w1, b1), (w2, b2), (w3, b3) = layers_of(net)
    h1 = (x @ w1.T + b1).tanh()
    h2 = (h1 @ w2.T + b2).tanh()
    return [x, h1, h2], [1 - h1**2, 1 - h2**2], h2 @ w3.T + b3


def error_of(logits, y):
    """The gradient of each sample's cross-entropy by its logits."""
    return logits.softmax(1) - F.one_hot(y, 10).float()


def products(deltas, inputs):
    """Gradients of weights and biases from the sums over samples of delta^T h."""
    n = len(deltas[0])
    found = []
    for delta, h in zip(deltas, inputs, strict=True):
        found += [delta.T @ h / n, delta.sum(0) / n]
    return found


def pepita(net, x, y, index):
    matrix = draw_feedback(
        (64, 10),
        fan_in=64,
        fan_out=10,
        distribution="uniform",
        scale=0.05 * 2**0.5,
        seed=derive_seed(SEED, "input"),
    )
    (_, h1, h2), _, logits = forward(net, x)
    changed = x + error_of(logits, y) @ matrix.T
    inputs, _, logits = forward(net, changed)
    return products([h1 - inputs[1], h2 - inputs[2], error_of(logits, y)], inputs)


def predictive_coding(net, x, y, index, steps=20, lr=0.1):
    (w2, b2), (w3, b3) = layers_of(net)[1:]
    (_, v1, v2), _, _ = forward(net, x)
    f1 = v1
    for _ in range(steps):
        f2 = (v1 @ w2.T + b2).tanh()
        above = error_of(v2 @ w3.T + b3, y)
        pull = ((v2 - f2) * (1 - f2**2)) @ w2
        v1, v2 = v1 - lr * (v1 - f1 - pull), v2 - lr * (v2 - f2 + above @ w3)
    f2 = (v1 @ w2.T + b2).tanh()
    deltas = [(f1 - v1) * (1 - f1**2), (f2 - v2) * (1 - f2**2)]
    return products([*deltas, error_of(v2 @ w3.T + b3, y)], [x, v1, v2])


def backpropagation(net, x, y, index):
    inputs, (f1, f2), logits = forward(net, x)
    e = error_of(logits, y)
    delta2 = (e @ net.head.weight) * f2
    return products([(delta2 @ net.layers[1][0].weight) * f1, delta2, e], inputs)


def effect_of_noise(net, x, index, epsilon=None):
    """Noises at both hidden layers, and what they do to the logits."""
    generator = generator_of(SEED, index, 0)
    v1, v2 = (torch.randn(len(x), 256, generator=generator) for _ in range(2))
    (_, h1, _), (_, f2), _ = forward(net, x)
    (w2, b2), (w3, b3) = layers_of(net)[1:]
    if epsilon is None:
        return v1, v2, (v2 + (v1 @ w2.T) * f2) @ w3.T

    def logits(sign):
        moved = (h1 + sign * epsilon * v1) @ w2.T + b2
        return (moved.tanh() + sign * epsilon * v2) @ w3.T + b3

    return v1, v2, (logits(1) - logits(-1)) / (2 * epsilon)


def forward_gradient(net, x, y, index, epsilon=None):
    inputs, (f1, f2), logits = forward(net, x)
    v1, v2, d = effect_of_noise(net, x, index, epsilon)
    e = error_of(logits, y)
    slopes = (e * d).sum(1, keepdim=True)
    return products([slopes * v1 * f1, slopes * v2 * f2, e], inputs)


def directions(net, index):
    generator = generator_of(SEED, index, 0)
    return [torch.randn(p.shape, generator=generator) for p in net.parameters()]


def forward_gradient_weights(net, x, y, index):
    exact = backpropagation(net, x, y, index)
    along = directions(net, index)
    slope = sum((g * v).sum() for g, v in zip(exact, along, strict=True))
    return [slope * v for v in along]


def spsa(net, x, y, index, epsilon=1e-3):
    along, own = directions(net, index), [p.clone() for p in net.parameters()]
    losses = []
    for sign in (1, -1):
        for p, w, v in zip(net.parameters(), own, along, strict=True):
            p.copy_(w + sign * epsilon * v)
        losses.append(F.cross_entropy(forward(net, x)[2], y))
    for p, w in zip(net.parameters(), own, strict=True):
        p.copy_(w)
    return [(losses[0] - losses[1]) / (2 * epsilon) * v for v in along]


class TargetPropagation:
    """``t_1 = h_1 + G(t_2) - G(h_2)``; G learns to undo the second layer, if it is to."""

    def __init__(self, learned):
        self.learned = learned
        generator = torch.Generator().manual_seed(derive_seed(SEED, "layers.0"))
        self.q = torch.randn(256, 256, generator=generator) / 16
        self.c = torch.zeros(256)

    def inverse(self, t):
        mapped = t @ self.q.T + self.c
        return mapped if self.learned else mapped.tanh()

    def __call__(self, net, x, y, index):
        inputs, (f1, f2), logits = forward(net, x)
        e = error_of(logits, y)
        t2 = inputs[2] - 0.1 * (e @ net.head.weight)
        t1 = inputs[1] + self.inverse(t2) - self.inverse(inputs[2])
        found = products([(inputs[1] - t1) * f1, (inputs[2] - t2) * f2, e], inputs)
        if not self.learned:
            return found
        noisy = inputs[1] + 0.1 * torch.randn(len(x), 256, generator=generator_of(SEED, index, 0))
        w, b = layers_of(net)[1]
        above = (noisy @ w.T + b).tanh()
        return found + products([self.inverse(above) - noisy], [above])


RULES = {
    "pepita": lambda: pepita,
    "predictive_coding": lambda: predictive_coding,
    "predictive_coding_fixed": lambda: backpropagation,
    "forward_gradient": lambda: forward_gradient,
    "node_perturbation": lambda: lambda *args: forward_gradient(*args, epsilon=1e-3),
    "forward_gradient_weights": lambda: forward_gradient_weights,
    "spsa": lambda: spsa,
    "target_propagation": lambda: TargetPropagation(learned=True),
    "target_propagation_fixed": lambda: TargetPropagation(learned=False),
}


# Where the directions are random, a larger step diverges.
RATES = dict.fromkeys(("forward_gradient_weights", "spsa"), 1e-05)


@torch.no_grad()
def by_hand(net, gradients, lr):
    """The loop: gradients, AdamW."""
    weights, own = [p for pair in layers_of(net) for p in pair], []
    groups = [{"params": weights}]
    if getattr(gradients, "learned", False):
        own = [gradients.q, gradients.c]
        groups.append({"params": own, "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=0.01)
    batches = list(Digits(batch_size=64, seed=SEED, val_split=0).train_dataloader())
    for index, (x, y) in enumerate(batches[:STEPS]):
        step(optimizer, [*weights, *own], gradients(net, x.flatten(1), y, index))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_from_yaml_equals_the_loop_after_20_steps(name, tmp_path):
    lr = RATES.get(name, 0.01)
    # Adam, and the corner of a ReLU, turn the rounding of a small number into a step of full size.
    options = {"lr": lr, "momentum": 0.9, "weight_decay": 0.01}
    trained = trained_from_yaml(
        name,
        tmp_path,
        "--model.init_args.net.init_args.activation=tanh",
        "--model.init_args.optimizer.class_path=torch.optim.SGD",
        f"--model.init_args.optimizer.init_args={json.dumps(options)}",
    )
    net = seeded(lambda: MLP(64, [256, 256], activation="tanh"))
    start = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = RULES[name]()
    by_hand(net, gradients, lr)
    for key, value in net.state_dict().items():
        assert not torch.equal(value, start[key])
        torch.testing.assert_close(trained[f"net.{key}"], value, atol=1e-5, rtol=0)
    if name.startswith("target_propagation"):
        torch.testing.assert_close(trained["inverses.weight_0"], gradients.q, atol=1e-5, rtol=0)
        torch.testing.assert_close(trained["inverses.bias_0"], gradients.c, atol=1e-5, rtol=0)
