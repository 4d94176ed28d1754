"""Equilibrium propagation against backpropagation through the relaxation, and against formulas."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms
from lit_credit.datamodules import Digits
from lit_credit.models import MLP, EnergyMLP
from lit_credit.rules import BP, EquilibriumPropagation
from lit_credit.tasks import Classification
from tests.rules.checkpoints.test_checkpoints import fit
from tests.rules.test_reference_loops import SEED, STEPS, step, trained_from_yaml
from tests.support import gradients, images, loader, quiet_trainer, seeded


def batch():
    x, y = images()
    return x.double(), y


def task(output="linear"):
    squared = output == "state"
    return Classification(5, nn.MSELoss() if squared else None, one_hot=squared)


def net(output="linear", activation="tanh"):
    """A net whose states have settled after 200 steps."""
    made = EnergyMLP(
        20, [16, 12], 5, activation, output, steps=200, init="normal", init_std=0.15
    ).double()
    for layer in made.layers:
        nn.init.normal_(layer.bias, std=0.3)
    return made


def rule(kind=EquilibriumPropagation, output="linear", activation="tanh", **kwargs):
    if kind is EquilibriumPropagation:
        kwargs = {"nudged_steps": 200} | kwargs
    return seeded(lambda: kind(net(output, activation), task(output), **kwargs))


def flat(tensors):
    return torch.cat([value.flatten() for value in tensors.values()])


def error(found, exact):
    return float((flat(found) - flat(exact)).norm() / flat(exact).norm())


@pytest.mark.parametrize("output", ["linear", "state"])
@pytest.mark.parametrize(
    ("nudging", "factor"), [("one_sided", 2), ("random_sign", 2), ("symmetric", 4)]
)
def test_the_bias_falls_with_beta(nudging, factor, output):
    exact = gradients(rule(BP, output), batch())
    betas = (0.2, 0.1, 0.05)
    errors = [
        error(gradients(rule(output=output, nudging=nudging, beta=beta), batch()), exact)
        for beta in betas
    ]
    assert errors[0] < 0.5
    for large, small in pairwise(errors):
        assert large / small == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("output", ["linear", "state"])
def test_with_small_beta_update_and_credit_are_the_exact_gradients(output, activation):
    exact = rule(BP, output, activation)
    found = rule(output=output, activation=activation, beta=1e-4)
    mine, wanted = gradients(found, batch()), gradients(exact, batch())
    for name in wanted:
        assert error({"": mine[name]}, {"": wanted[name]}) < 1e-5, name
    credit, gradient = found.credit(batch()), exact.credit(batch())
    assert list(credit) == list(gradient) == found.credit_units
    for name in gradient:
        assert error({"": credit[name]}, {"": gradient[name]}) < 1e-5, name


def test_credit_is_the_difference_of_states():
    found = rule(beta=0.3)
    x, y = batch()
    states = {}
    for sign in (1, -1):

        def force(s, sign=sign):
            e = found.net.head(s[1]).softmax(1) - F.one_hot(y, 5)
            return [torch.zeros_like(s[0]), -sign * 0.3 * e @ found.net.head.weight]

        with torch.no_grad():
            states[sign] = found.net.relax([x], found.net.relax([x]), 200, force)
    credit = found.credit((x, y))
    for index, unit in enumerate(found.credit_units):
        expected = -(states[1][index] - states[-1][index]) / (0.6 * len(x))
        torch.testing.assert_close(credit[unit], expected)
    # The bias of a layer receives the credit of its output, summed over samples.
    bias = gradients(found, (x, y))["layers.0.bias"]
    torch.testing.assert_close(bias, credit["net.layers.0"].sum(0))


def test_credit_of_chosen_units_alone():
    chosen = rule(units=["layers.1"], readout=["head"])
    credit = chosen.credit(batch())
    assert list(credit) == ["net.layers.1"]
    torch.testing.assert_close(credit["net.layers.1"], rule().credit(batch())["net.layers.1"])


def test_the_random_sign_depends_on_the_step_and_both_signs_appear():
    found = rule(nudging="random_sign")
    signs = [found._signed_beta() > 0 for _ in range(20)]
    assert 4 < sum(signs) < 16
    again = rule(nudging="random_sign")
    assert [again._signed_beta() > 0 for _ in range(20)] == signs


def by_hand_with_readout(parameters, x, target, beta):
    """One update's gradients: two layers of states, a linear readout, cross-entropy."""
    w1, b1, w2, b2, w3, b3 = parameters

    def error(s):
        return (s @ w3.T + b3).softmax(1) - target

    def settled(one, two, steps, b):
        for _ in range(steps):
            two = (one @ w2.T + b2 - b * error(two) @ w3).clamp(0, 1)
            one = (x @ w1.T + b1 + two @ w2).clamp(0, 1)
        return one, two

    free = settled(x.new_zeros(len(x), 256), x.new_zeros(len(x), 256), 15, 0)
    (one, two), (other, last) = (settled(*free, 5, b) for b in (beta, -beta))
    d = 2 * beta * len(x)
    return [
        *(-(one - other).T @ x / d, -(one - other).sum(0) / d),
        *((last.T @ other - two.T @ one) / d, -(two - last).sum(0) / d),
        (error(two).T @ two + error(last).T @ last) / (2 * len(x)),
        (error(two) + error(last)).sum(0) / (2 * len(x)),
    ]


def by_hand_with_output_state(parameters, x, target, beta):
    """One update's gradients: a hidden and an output layer of states, the mean square."""
    w1, b1, w2, b2 = parameters

    def settled(one, two, steps, b):
        for _ in range(steps):
            two = (one @ w2.T + b2 - b * 2 * (two - target) / 10).clamp(0, 1)
            one = (x @ w1.T + b1 + two @ w2).clamp(0, 1)
        return one, two

    free = settled(x.new_zeros(len(x), 256), x.new_zeros(len(x), 10), 15, 0)
    (one, two), (other, last) = (settled(*free, 5, b) for b in (beta, -beta))
    d = 2 * beta * len(x)
    return [
        *(-(one - other).T @ x / d, -(one - other).sum(0) / d),
        *((last.T @ other - two.T @ one) / d, -(two - last).sum(0) / d),
    ]


LINEAR = {"net.init_args.output": "linear", "net.init_args.hidden": "[256,256]"}
LINEAR |= {"task.init_args.loss": "torch.nn.CrossEntropyLoss", "beta": "0.5"}


@pytest.mark.parametrize("output", ["state", "linear"])
def test_the_rule_from_yaml_equals_a_loop_by_hand_after_20_steps(output, tmp_path):
    # AdamW turns the rounding of a vanishing gradient into a step of full size.
    extra = ["--trainer.precision", "64-true"]
    for name, value in LINEAR.items() if output == "linear" else ():
        extra += [f"--model.init_args.{name}", value]
    trained = trained_from_yaml("equilibrium_propagation", tmp_path, *extra)
    hidden = [256, 256] if output == "linear" else [256]
    made = seeded(lambda: EnergyMLP(64, hidden, output=output)).double()
    parameters = [value.detach() for value in made.parameters()]
    start = [value.clone() for value in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    for x, y in list(Digits(batch_size=64, seed=SEED, val_split=0).train_dataloader())[:STEPS]:
        loop, beta = (
            (by_hand_with_readout, 0.5) if output == "linear" else (by_hand_with_output_state, 2.5)
        )
        found = loop(parameters, x.flatten(1).double(), F.one_hot(y, 10), beta)
        step(optimizer, parameters, found)
    for name, value, before in zip(made.state_dict(), parameters, start, strict=True):
        assert not torch.equal(value, before)
        torch.testing.assert_close(trained[f"net.{name}"], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("other", [lambda: MLP(20, [8], 5), lambda: nn.Linear(20, 5)])
def test_a_net_without_an_energy_is_refused(other):
    message = r"has no method `relax`, `energy`, `output_of`\. Train .*EnergyMLP.*docs/protocols"
    with pytest.raises(ValueError, match=message):
        EquilibriumPropagation(other(), Classification(5))


class HalfANet(nn.Linear):
    def energy(self, inputs, states):
        return torch.zeros(len(inputs[0]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"net": HalfANet(20, 5)}, r"HalfANet has no method `relax`, `output_of`"),
        ({"beta": 0.0}, r"`beta` is 0.0, expected a number above 0"),
        ({"nudging": "both"}, r"`nudging` is 'both', expected 'symmetric', 'one_sided' or"),
        ({"nudged_steps": 0}, r"`nudged_steps` is 0, expected at least 1"),
    ],
)
def test_what_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EquilibriumPropagation(**({"net": EnergyMLP(20, [8], 5), "task": task()} | kwargs))


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="`compile` needs torch 2.6")
@pytest.mark.parametrize("given", [True, {}])
def test_compile_is_refused(given):
    with pytest.raises(ValueError, match=r"`compile` is .*, expected false"):
        EquilibriumPropagation(EnergyMLP(20, [8], 5), task(), compile=given)


def small(**kwargs):
    options = {"nudged_steps": 5} | kwargs
    return seeded(
        lambda: EquilibriumPropagation(EnergyMLP(20, [12, 8], 5, steps=10), task(), **options)
    )


def test_diagnostics_run_under_it(tmp_path):
    watch = [kind(figure=False) for kind in (CreditAlignment, ResidualNorms, GradientNorms)]
    bare, watched = small(), small()
    quiet_trainer(max_epochs=2).fit(bare, loader(), loader())
    trainer = quiet_trainer(max_epochs=2, callbacks=watch, default_root_dir=tmp_path)
    trainer.fit(watched, loader(), loader())
    for name, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name])
    alignment, norms, gradient = (callback.history.rows[-1]["values"] for callback in watch)
    assert alignment["credit/cosine/L00"] > 0.95
    assert alignment["credit/cosine/L01"] > 0.95
    assert alignment["credit/update/layers.0.weight"] > 0.9
    # The stream is the settled states: inputs of the second layer and of the head.
    assert list(norms) == ["residual/norm/L00", "residual/norm/L01"]
    assert min(norms.values()) > 0.1
    assert gradient["gradient/norm/L00"] > 0


def test_hooks_see_the_settled_states():
    made = net()
    seen = {}
    for index, layer in enumerate(made.layers):
        layer.register_forward_hook(lambda _, args, out, i=index: seen.update({i: (*args, out)}))
    x, _ = batch()
    made(x)
    states = made.relax([x])
    torch.testing.assert_close(seen[1][0], states[0])
    expected = states[0] @ made.layers[1].weight.T + made.layers[1].bias
    torch.testing.assert_close(seen[1][1], expected)


@pytest.mark.parametrize("nudging", ["symmetric", "random_sign"])
@pytest.mark.parametrize("cut", [6, 9])
def test_a_resumed_run_is_the_run_to_the_bit(nudging, cut, tmp_path):
    whole = fit(small(nudging=nudging), tmp_path / "whole")
    fit(small(nudging=nudging), tmp_path / "cut", stop=cut, every=3)
    saved = tmp_path / "cut" / "checkpoints" / f"step={cut}.ckpt"
    other = small(nudging=nudging)
    other.noise_seed = 7  # as that of a process with another seed
    resumed = fit(other, tmp_path / "cut", ckpt_path=saved)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_backpropagation_trains_the_net_under_mixed_precision():
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        made = seeded(lambda: BP(EnergyMLP(20, [12, 8], 5, steps=10), task()))
        quiet_trainer(max_steps=1, precision=precision).fit(made, loader())
        found[precision] = {n: p.grad.clone() for n, p in made.net.named_parameters()}
    assert error(found["bf16-mixed"], found["32-true"]) < 0.05
    assert all(bool(gradient.any()) for gradient in found["bf16-mixed"].values())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true"])
def test_half_and_mixed_precision_are_refused(precision):
    kind = precision.split("-")[1].replace("true", "half")
    with pytest.raises(ValueError, match=rf"two almost equal .* {kind} precision .*32-true"):
        quiet_trainer(max_steps=1, precision=precision).fit(small(), loader())


class Stranger(nn.Module):
    """Feature maps and a state that sees them, relaxed down the gradient of any energy."""

    credit_units = ("conv", "dense")
    readout = ("out",)

    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv1d(1, 2, 3, stride=2), nn.Linear(18, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        return self.output_of(self.relax([x], None, None, None))

    def relax(self, inputs, states, steps, force):
        n = len(inputs[0])
        states = states or [inputs[0].new_zeros(n, 2, 9), inputs[0].new_zeros(n, 6)]
        for _ in range(steps or 300):
            with torch.enable_grad():
                leaves = [state.detach().requires_grad_() for state in states]
                energy = self.energy(inputs, leaves)
                slopes = torch.autograd.grad(energy.sum(), leaves)
            forces = [0, 0] if force is None else force(states)
            states = [
                s + 0.5 * (f - slope) for s, f, slope in zip(states, forces, slopes, strict=True)
            ]
        return states

    def energy(self, inputs, states):
        maps, dense = states
        own = 0.5 * maps.flatten(1).square().sum(1) + 0.5 * dense.square().sum(1)
        first = (maps * self.conv(inputs[0][:, None]).tanh()).flatten(1).sum(1)
        return own - first - (dense * self.dense(maps.flatten(1).tanh())).sum(1)

    def output_of(self, states):
        return self.out(states[1])


def test_a_net_of_another_author_needs_three_methods():
    x, y = batch()
    made = seeded(lambda: Stranger().double())
    found = EquilibriumPropagation(made, Classification(5), beta=1e-3, nudged_steps=300)
    update = gradients(found, (x, y))
    credit = found.credit((x, y))
    assert [tuple(value.shape) for value in credit.values()] == [(96, 2, 9), (96, 6)]
    # Its loss at settled states, by finite differences.
    for name, parameter in made.named_parameters():
        index = (0,) * parameter.dim()
        values = []
        for shift in (1e-4, -1e-4):
            other = copy.deepcopy(made)
            with torch.no_grad():
                other.get_parameter(name)[index] += shift
                values.append(F.cross_entropy(other(x), y))
        expected = (values[0] - values[1]) / 2e-4
        torch.testing.assert_close(update[name][index], expected, rtol=1e-3, atol=1e-7)
    quiet_trainer(max_epochs=1).fit(
        EquilibriumPropagation(Stranger(), Classification(5), beta=0.5), loader()
    )
