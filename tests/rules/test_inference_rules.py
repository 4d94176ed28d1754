"""What must hold of rules with several passes or an inner loop."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.feedback import Inverses, attached
from lit_credit.models import GPT, MLP, EnergyMLP, LeNet, ResidualMLP, ResNet
from lit_credit.rules import (
    BP,
    DFA,
    FA,
    PEPITA,
    ForwardForward,
    ForwardGradient,
    PredictiveCoding,
    TargetPropagation,
)
from lit_credit.tasks import Classification, NextToken, Supervised
from tests.support import seeded

KINDS = {
    "PEPITA": (PEPITA, {}),
    "PredictiveCoding": (PredictiveCoding, {"iterations": 3}),
    "PredictiveCoding, fixed": (PredictiveCoding, {"iterations": 3, "prediction": "fixed"}),
    "ForwardGradient": (ForwardGradient, {}),
    "node perturbation": (ForwardGradient, {"derivative": "difference"}),
    "ForwardGradient, weights": (ForwardGradient, {"perturb": "weights"}),
    "SPSA": (ForwardGradient, {"perturb": "weights", "derivative": "difference"}),
    "TargetPropagation": (TargetPropagation, {}),
    "TargetPropagation, fixed": (TargetPropagation, {"learned_feedback": False}),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def vectors(n=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 20, generator=generator, dtype=dtype)
    return x, torch.randint(5, (n,), generator=generator)


def pictures():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4)


def symbols():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randint(7, (2, 3, 6), generator=generator)
    return x, y


def mlp(**options):
    return seeded(lambda: MLP(20, [16, 12, 8], num_classes=5, **{"activation": "tanh", **options}))


def make(name, net, task=None, batch=None, **options):
    kind, own = KINDS[name]
    rule = kind(net, task or Classification(5), **{**own, **options})
    if rule.builds:
        rule.prepare(vectors(dtype=next(net.parameters()).dtype) if batch is None else batch)
    return rule


def gradients(rule, batch):
    rule.zero_grad()
    rule.surrogate(batch)[1].backward()
    return {n: p.grad.clone() for n, p in rule.net.named_parameters() if p.grad is not None}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name, **tolerance)


# Predictive coding

NETS = {
    "mlp": (mlp, vectors, Classification(5)),
    "residual": (lambda: ResidualMLP(20, 16, 5, 3), vectors, Classification(5)),
    "gpt": (lambda: GPT(7, block_size=6, width=8, depth=2), symbols, NextToken()),
}


@pytest.mark.parametrize("net", NETS)
def test_fixed_predictions_give_the_gradient_after_as_many_iterations_as_units(net):
    build, batch, task = NETS[net]
    net = seeded(build).double()
    exact = gradients(BP(net, task), batch())
    options = {"prediction": "fixed", "inference_lr": 1.0}
    rule = PredictiveCoding(net, task, iterations=len(net.credit_units), **options)
    assert_same(gradients(rule, batch()), exact, rtol=0, atol=1e-14)


def test_the_error_moves_down_by_one_unit_in_an_iteration():
    net = mlp().double()
    for iterations in (1, 2, 3):
        credit = PredictiveCoding(net, Classification(5), iterations=iterations).credit(vectors())
        reached = [bool(value.any()) for value in credit.values()]
        assert reached == [3 - index <= iterations for index in range(3)]


def test_states_relax_to_where_the_energy_is_stationary():
    net = mlp().double()
    rule = PredictiveCoding(net, Classification(5), iterations=1500, inference_lr=0.1)
    x, y = vectors()
    states = [v.requires_grad_() for v in rule.infer((x, y)).values.values()]
    below = [x, *states]
    energy = F.cross_entropy(net.head(states[-1]), y, reduction="sum")
    for layer, h, v in zip(net.layers, below, states, strict=False):
        energy = energy + 0.5 * (v - layer(h)).square().sum()
    for slope in torch.autograd.grad(energy, states):
        assert slope.abs().max() < 1e-10
    # At the states that have relaxed, the update is the gradient of the energy by the weights.
    expected = torch.autograd.grad(
        F.cross_entropy(net.head(states[-1].detach()), y)
        + sum(
            0.5 * (v.detach() - layer(h.detach())).square().sum() / len(x)
            for layer, h, v in zip(net.layers, below, states, strict=False)
        ),
        list(net.parameters()),
    )
    found = gradients(rule, (x, y))
    assert_same(found, dict(zip(found, expected, strict=True)), rtol=1e-9, atol=1e-12)


def test_the_weight_of_the_loss_reaches_the_readout_too():
    net = mlp().double()
    options = {"prediction": "fixed", "iterations": 3, "inference_lr": 1.0}
    plain = gradients(PredictiveCoding(net, Classification(5), **options), vectors())
    heavy = PredictiveCoding(net, Classification(5), loss_weight=5.0, **options)
    expected = {name: 5 * value for name, value in plain.items()}
    assert_same(gradients(heavy, vectors()), expected, rtol=1e-12, atol=0)


# Forward gradients


@pytest.mark.slow
@pytest.mark.parametrize("perturb", ["activities", "weights"])
def test_the_mean_over_10000_directions_is_the_gradient_within_its_spread(perturb):
    net = seeded(lambda: MLP(20, [4], num_classes=5, activation="tanh")).double()

    def flat(rule):
        return torch.cat([g.flatten() for g in gradients(rule, vectors()).values()])

    def rule(directions, seed):
        options = {"perturb": perturb, "directions": directions, "noise_seed": seed}
        return ForwardGradient(net, Classification(5), **options)

    exact = flat(BP(net, Classification(5)))
    mean = flat(rule(10_000, seed=5))
    single = rule(1, seed=6)
    spread = torch.stack([flat(single) for _ in range(500)]).std(0)
    noisy = spread > 1e-12
    error = (mean - exact)[noisy] / (spread[noisy] / 100)
    assert error.abs().max() < 4.5
    assert 0.6 < error.square().mean() < 1.5
    torch.testing.assert_close(mean[~noisy], exact[~noisy], rtol=1e-9, atol=1e-12)
    # Where activities are perturbed, the readout is exact.
    assert int((~noisy).sum()) == (25 if perturb == "activities" else 0)


@pytest.mark.parametrize("perturb", ["activities", "weights"])
def test_differences_tend_to_the_exact_slope(perturb):
    net = mlp().double()
    options = {"perturb": perturb, "noise_seed": 5, "directions": 3}
    exact = gradients(ForwardGradient(net, Classification(5), **options), vectors())
    worst = []
    for epsilon in (1e-2, 1e-3):
        rule = ForwardGradient(
            net, Classification(5), derivative="difference", epsilon=epsilon, **options
        )
        found = gradients(rule, vectors())
        worst.append(max((found[n] - g).abs().max().item() for n, g in exact.items()))
    assert worst[0] < 0.05
    assert worst[1] == pytest.approx(worst[0] / 100, rel=0.05)  # central: the error is epsilon^2


def test_more_directions_are_the_mean_of_their_estimates():
    net = mlp().double()

    def rule(directions):
        return ForwardGradient(net, Classification(5), directions=directions, noise_seed=5)

    together = rule(4).credit(vectors())
    parts = rule(1)
    each = [parts.credit(vectors()) for _ in range(400)]
    spread = {name: torch.stack([part[name] for part in each]).std(0) for name in together}
    many = rule(400).credit(vectors())
    for name, value in together.items():
        noise = (value - many[name]).std() / spread[name].mean()
        assert 0.35 < noise < 0.7  # 1 / sqrt(4)


def test_perturbed_weights_keep_no_graph():
    net = mlp().double()
    rule = ForwardGradient(net, Classification(5), perturb="weights")
    loss, scalar = rule.surrogate(vectors())
    nodes = {type(node).__name__ for node, _ in scalar.grad_fn.next_functions if node is not None}
    assert nodes == {"AccumulateGrad"}
    assert not loss.requires_grad
    assert rule.credit(vectors()) == {}


# Target propagation


def test_exact_inverses_give_the_closed_form_on_a_linear_net():
    net = seeded(lambda: MLP(20, [8, 8, 8], num_classes=5, activation="identity")).double()
    x, y = vectors()
    rule = make("TargetPropagation", net, target_lr=0.3)
    with torch.no_grad():
        for index in (0, 1):
            inverse = torch.linalg.inv(net.layers[index + 1][0].weight)
            getattr(rule.inverses, f"weight_{index}").copy_(inverse)
    found = gradients(rule, (x, y))
    one, two, three = (layer[0] for layer in net.layers)
    h1 = one(x)
    h2 = two(h1)
    error = (net.head(three(h2)).softmax(1) - F.one_hot(y, 5)) / len(x)
    delta3 = 0.3 * error @ net.head.weight
    delta2 = delta3 @ torch.linalg.inv(three.weight).T
    delta1 = delta2 @ torch.linalg.inv(two.weight).T
    for index, (delta, h) in enumerate([(delta1, x), (delta2, h1), (delta3, h2)]):
        expected = delta.T @ h
        torch.testing.assert_close(
            found[f"layers.{index}.0.weight"], expected, rtol=1e-9, atol=1e-12
        )
    exact = gradients(BP(net, Classification(5)), (x, y))
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(found[name], exact[name])


def test_the_mappings_learn_to_invert_the_units():
    options = {"activation": "identity", "init": "orthogonal"}
    net = seeded(lambda: MLP(20, [8, 8], num_classes=5, **options)).double()
    rule = make("TargetPropagation", net, reconstruction_noise=1.0)
    mappings = list(rule.inverses.parameters())
    optimizer = torch.optim.SGD(mappings, lr=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        rule.surrogate(vectors(64))[1].backward()
        optimizer.step()
    product = rule.inverses.weight_0 @ net.layers[1][0].weight
    torch.testing.assert_close(product, torch.eye(8).double(), rtol=0, atol=0.05)


def test_the_mappings_do_not_change_the_update_of_the_net_through_their_loss():
    net = mlp().double()
    learned = make("TargetPropagation", net, feedback_seed=1)
    fixed = make("TargetPropagation, fixed", net, feedback_seed=1)
    assert_same(gradients(learned, vectors()), gradients(fixed, vectors()), rtol=0, atol=0)
    assert list(fixed.inverses.parameters()) == []
    assert {n for n, _ in fixed.inverses.named_buffers()} >= {"weight_0", "bias_1"}


# PEPITA


def test_the_credit_is_what_the_error_at_the_input_changes():
    net = mlp().double()
    x, y = vectors()
    rule = make("PEPITA", net, feedback_seed=1)
    credit = rule.credit((x, y))
    error = net(x).softmax(1) - F.one_hot(y, 5)
    before, after = x, x + error @ rule.feedback.matrix.double().T
    bound = 0.05 * (6 / 20) ** 0.5
    assert 0.9 * bound < rule.feedback.matrix.abs().max() <= bound
    for index, layer in enumerate(net.layers):
        before, after = layer(before), layer(after)
        torch.testing.assert_close(credit[f"net.layers.{index}"], (before - after) / len(x))


def test_both_passes_have_the_same_masks():
    net = mlp(dropout=0.5).double()
    rule = make("PEPITA", net, feedback_scale=0.0)
    assert all(not credit.any() for credit in rule.credit(vectors()).values())


class InPlace(nn.Module):
    """Joined units whose activation may work in place."""

    def __init__(self, inplace=True):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(20, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x):
        return self.c(self.act(self.b(self.act(self.a(x)))))


@every_kind
@pytest.mark.parametrize("units", [["a+act", "b+act"], ["a", "b"]])
@pytest.mark.filterwarnings("ignore:.*enters in front of")
def test_activations_in_place_change_nothing(name, units):
    found = []
    for inplace in (False, True):
        net = seeded(lambda inplace=inplace: InPlace(inplace)).double()
        names = {"units": units, "readout": ["c"]}
        seeds = {"PEPITA": "feedback_seed", "Targ": "feedback_seed", "Pred": None}
        seed = seeds.get(name if name == "PEPITA" else name[:4], "noise_seed")
        options = {} if seed is None else {seed: 1}
        found.append(gradients(make(name, net, **names, **options), vectors()))
    assert_same(found[1], found[0], rtol=0, atol=0)


# All of them


@every_kind
@pytest.mark.parametrize("amp", [False, True])
def test_extra_passes_leave_no_trace_in_buffers_and_random_states(name, amp):
    net = mlp(norm="batch", dropout=0.2)
    rule = make(name, net)
    batch = vectors(dtype=torch.float32)
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        loss, scalar = rule.surrogate(batch)
    scalar.backward()
    after = torch.rand(())
    norm = net.layers[0][1]
    assert int(norm.num_batches_tracked) == 1
    assert norm.running_mean.requires_grad is False
    exact = BP(mlp(norm="batch", dropout=0.2), Classification(5))
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        plain = exact.surrogate(batch)[0]
    assert torch.equal(after, torch.rand(()))
    if name != "SPSA":  # the mean of two losses beside the point
        torch.testing.assert_close(loss.float(), plain.float(), rtol=2e-2 if amp else 1e-5, atol=0)
    for parameter, value in net.named_parameters():
        assert value.grad.isfinite().all(), parameter


@pytest.mark.parametrize("name", ["PEPITA", "node perturbation", "SPSA"])
def test_small_differences_run_in_float32_and_refuse_weights_of_half_precision(name):
    found = []
    for amp in (False, True):
        seed = {"feedback_seed" if name == "PEPITA" else "noise_seed": 1}
        rule = make(name, mlp(), **seed)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            scalar = rule.surrogate(vectors(dtype=torch.float32))[1]
        scalar.backward()
        found.append(torch.cat([p.grad.flatten() for p in rule.net.layers.parameters()]))
    assert F.cosine_similarity(*found, dim=0) > 0.999
    rule = make(name, mlp().bfloat16())
    with pytest.raises(ValueError, match=f"{type(rule).__name__} learns from small differences"):
        rule.surrogate(vectors(dtype=torch.bfloat16))


FOREIGN = {
    "lenet": (lambda: LeNet(in_channels=3, image_size=32), pictures, Classification(10), {}),
    "resnet": (lambda: ResNet(20), pictures, Classification(10), {}),
    "torchvision": (
        lambda: torchvision.models.resnet18(num_classes=10),
        pictures,
        Classification(10),
        {"units": ["conv1+bn1+relu+maxpool", "layer*.*"], "readout": ["fc"]},
    ),
    "gpt": (lambda: GPT(7, block_size=6, width=8, depth=2), symbols, NextToken(), {}),
    "residual": (
        lambda: ResidualMLP(20, 16, 5, 3),
        lambda: vectors(dtype=torch.float32),
        Classification(5),
        {},
    ),
}


@every_kind
@pytest.mark.parametrize("foreign", FOREIGN)
def test_every_parameter_of_every_net_gets_a_finite_gradient(name, foreign):
    build, batch, task, names = FOREIGN[foreign]
    pools = foreign in ("lenet", "torchvision")
    options = {"derivative": True} if name == "PEPITA" and pools else {}
    net = seeded(build)
    if name == "PEPITA" and foreign == "gpt":
        with pytest.raises(ValueError, match="expected real numbers"):
            gradients(make(name, net, task, batch()), batch())
        return
    if name == "PEPITA" and pools:
        with pytest.raises(ValueError, match="`derivative: true`"):
            gradients(make(name, net, task, batch(), **names), batch())
    rule = make(name, net, task, batch(), **names, **options)
    found = gradients(rule, batch())
    assert found.keys() == dict(net.named_parameters()).keys()
    assert all(value.isfinite().all() for value in found.values())
    credit = rule.credit(batch())
    units = [] if "weights" in name or name == "SPSA" else rule.credit_units
    assert list(credit) == units


@every_kind
def test_frozen_units_stay_frozen(name):
    net = mlp()
    net.layers[0].requires_grad_(False)
    found = gradients(make(name, net), vectors(dtype=torch.float32))
    assert not [n for n in found if n.startswith("layers.0")]
    assert len(found) == 6


def test_an_operation_without_a_forward_derivative_is_refused():
    class NoForward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Late(MLP):
        def forward(self, x):
            return NoForward.apply(super().forward(x))

    for perturb in ("activities", "weights"):
        rule = ForwardGradient(Late(20, [4], 5), Classification(5), perturb=perturb)
        with pytest.raises(ValueError, match=r"has no forward .* `derivative: diff"):
            rule.surrogate(vectors(dtype=torch.float32))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PredictiveCoding, {"prediction": "exact"}, "`prediction` is 'exact'"),
        (PredictiveCoding, {"iterations": 0}, "`iterations` is 0"),
        (ForwardGradient, {"perturb": "weights", "scale_penalty": 0.1}, "`scale_penalty` is 0.1"),
        (TargetPropagation, {"feedback_activation": "elu"}, "`feedback_activation` is 'elu'"),
        (PEPITA, {"feedback": "weight"}, "`distribution` is 'weight'"),
    ],
)
def test_arguments_without_a_meaning_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(mlp(), Classification(5), **options)


# Nets, losses and precisions that a fresh reader tried


class Keeping(MLP):
    """Keeps the last activity in an attribute."""

    memory = 0.0

    def forward(self, x):
        output = super().forward(x) + 0.1 * self.memory
        self.memory = output.detach()
        return output


class OwnGenerator(MLP):
    """Draws its masks from a generator of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return super().forward(x * torch.rand(x.shape, generator=self.generator).to(x))


@pytest.mark.parametrize("name", [*KINDS, "ForwardForward"])
@pytest.mark.parametrize("build", [Keeping, OwnGenerator])
def test_a_net_that_answers_otherwise_when_it_runs_again_is_refused(name, build):
    if name == "ForwardForward":
        rule = ForwardForward(build(20, [8, 6], 5), Classification(5))
        rule.prepare(vectors(dtype=torch.float32))
    else:
        rule = make(name, build(20, [8, 6], 5))
    with pytest.raises(ValueError, match="keeps state in an attribute, or draws from a generator"):
        rule.surrogate(vectors(dtype=torch.float32))


@every_kind
def test_buffers_of_the_loss_are_put_back_too(name):
    class Counting(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, output, target):
            self.calls += 1
            return super().forward(output, target)

    task = Classification(5, loss=Counting())
    rule = make(name, mlp(), task)
    rule.surrogate(vectors(dtype=torch.float32))
    assert int(task.criterion.calls) <= (2 if name == "PEPITA" else 1)


def test_large_buffers_that_nothing_writes_are_copied_once():
    def count(net, *_):
        net.written += 1

    net = mlp()
    net.register_buffer("table", torch.zeros(100_000))
    net.register_buffer("written", torch.zeros(100_000))
    net.register_forward_hook(count)
    rule = make("PredictiveCoding", net)
    copies = []
    clone = Tensor.clone

    def watched(tensor, *args, **kwargs):
        copies.append(tensor.numel())
        return clone(tensor, *args, **kwargs)

    for step in (1, 2):
        copies.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "clone", watched)
            rule.surrogate(vectors(dtype=torch.float32))
        assert float(net.written[0]) == step
    assert copies.count(100_000) == 3  # of `written`, in each of the three iterations


def test_a_large_buffer_that_is_written_late_is_named_and_put_back_from_then_on():
    net = mlp()
    net.register_buffer("table", torch.zeros(100_000))
    rule = make("PredictiveCoding", net)
    rule.surrogate(vectors(dtype=torch.float32))

    def count(net, *_):
        net.table += 1

    net.register_forward_hook(count)
    with pytest.warns(UserWarning, match="wrote buffers that earlier passes had not: table"):
        rule.surrogate(vectors(dtype=torch.float32))
    before = float(net.table[0])
    rule.surrogate(vectors(dtype=torch.float32))
    assert float(net.table[0]) == before + 1


def test_a_gradient_that_is_known_survives_the_factor_of_a_scaler():
    weight = torch.zeros(3, dtype=torch.float16, requires_grad=True)
    known = torch.tensor([1e-3, 0.0, 1e-8])
    (65536.0 * attached(torch.tensor(1.0), [weight], [known])).backward()
    assert weight.grad.tolist() == pytest.approx([65.5, 0.0, 6.55e-4], rel=1e-2)


@pytest.mark.parametrize("name", ["PredictiveCoding", "TargetPropagation"])
def test_states_and_targets_are_as_exact_under_mixed_precision(name):
    found = []
    for amp in (False, True):
        rule = make(name, mlp())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            scalar = rule.surrogate(vectors(dtype=torch.float32))[1]
        scalar.backward()
        found.append([p.grad for p in rule.net.parameters()])
    for a, b in zip(*found, strict=True):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


class Recurrent(nn.Module):
    """Reads the state of its last layer, not what that layer returns first."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        _, (state, _) = self.two(self.one(x.unflatten(1, (5, 4)))[0])
        return self.head(state[-1])


@pytest.mark.parametrize("name", KINDS)
def test_units_whose_outputs_do_not_reach_the_loss_are_explained(name):
    if "weights" in name or name in ("SPSA", "PEPITA"):
        return  # they need no path from the units' outputs to the loss
    names = {"units": ["one", "two"], "readout": ["head"]}
    batch = vectors(dtype=torch.float32)
    if name.startswith("node") or name == "ForwardGradient":
        pytest.skip("the first layer's noise arrives")
    with pytest.raises(ValueError, match="does not depend on the units' outputs"):
        make(name, Recurrent(), batch=batch, **names).surrogate(batch)


class Flat(MLP):
    def forward(self, x):
        return super().forward(x)[:, 0]


@every_kind
def test_outputs_of_other_shapes_are_refused_with_a_remedy(name):
    batch = vectors(dtype=torch.float32)[0], torch.zeros(8)
    if "weights" in name or name == "SPSA" or name.startswith("Target"):
        rule = make(name, Flat(20, [6, 4], 1), Supervised(nn.MSELoss()), batch)
        rule.surrogate(batch)  # does not need the errors of samples
        return
    with pytest.raises(ValueError, match="return \\(N, 1\\)"):
        make(name, Flat(20, [6, 4], 1), Supervised(nn.MSELoss()), batch).surrogate(batch)


def test_a_mapping_is_refused_where_none_is_defined():
    inverses = Inverses(["a", "b"])
    for shape, after in [((8, 5, 6), (8, 6)), ((8, 5, 6), (8, 3, 6)), ((8, 5), (8, 4, 3, 3))]:
        with pytest.raises(ValueError, match=r"unit 'a' hands on .* by BlockFA"):
            inverses.make({"a": torch.zeros(shape), "b": torch.zeros(after)})


def test_a_target_does_not_pass_by_a_unit_that_does_not_run():
    class Dropping(MLP):
        def forward(self, x):
            h = self.layers[0](x)
            return self.head(self.layers[2](h) if self.drop else self.layers[2](self.layers[1](h)))

    net = Dropping(20, [6, 6, 6], 5)
    net.drop = False
    rule = make("TargetPropagation", net)
    net.drop = True
    with pytest.raises(ValueError, match=r"units layers\.1 do not run"):
        rule.surrogate(vectors(dtype=torch.float32))


def test_pepita_lets_go_of_its_graph():
    rule = make("PEPITA", mlp())
    rule.surrogate(vectors(dtype=torch.float32))
    copy.deepcopy(rule).surrogate(vectors(dtype=torch.float32))


def test_a_slope_that_would_not_learn_is_refused():
    with pytest.raises(ValueError, match=r"PReLU, whose slope .* `derivative: true`"):
        make("PEPITA", mlp(activation="prelu")).surrogate(vectors(dtype=torch.float32))


@pytest.mark.parametrize("directions", [1, 4])
def test_norms_see_one_pass_whatever_the_number_of_directions(directions):
    for name in ("ForwardGradient, weights", "SPSA"):
        net = mlp(norm="batch")
        make(name, net, directions=directions).surrogate(vectors(dtype=torch.float32))
        assert int(net.layers[0][1].num_batches_tracked) == 1


@pytest.mark.parametrize(
    "kind", [*dict.fromkeys(kind for kind, _ in KINDS.values()), FA, DFA, ForwardForward]
)
def test_nets_with_an_energy_are_refused_by_rules_that_cut_or_replace(kind):
    with pytest.raises(ValueError, match=f"EnergyMLP settles on an energy.*{kind.__name__}"):
        kind(EnergyMLP(20, [6, 6], 5), Classification(5))
