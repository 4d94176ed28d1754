"""Units that do not run in every step: dropped layers, experts without rows, early exits."""

import copy
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn
from torch.nn import functional as F

from lit_credit.datamodules import TensorLoader
from lit_credit.feedback import derive_seed, draw_feedback
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.rules.idle_nets import Chosen
from tests.rules.idle_worker import RULES, train_all
from tests.support import quiet_trainer, seeded
from tests.support.processes import run_module

TOKENS, WIDTH, CLASSES, STEPS, SEED = 3, 8, 4, 60, 7
TASK = Classification(CLASSES)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x):
        h = self.norm(x)
        h = x + self.attend(h, h, h, need_weights=False)[0]
        return h + self.mlp(h)


class LayerDrop(nn.Module):
    """A transformer each of whose layers is left out of a training step at random."""

    credit_units = ("embed", "layers.0", "layers.1", "layers.2")
    readout = ("head",)

    def __init__(self, drop=0.4):
        super().__init__()
        self.drop = drop
        self.embed = nn.Linear(5, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.dropped = []

    def forward(self, x):
        h = self.embed(x)
        kept = torch.rand(len(self.layers)) >= self.drop if self.training else [True] * 3
        self.dropped.append([not keep for keep in kept])
        for layer, keep in zip(self.layers, kept, strict=True):
            if keep:
                h = layer(h)
        return self.head(h.mean(1))


class Expert(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))


class Top1(nn.Module):
    """One expert of three for each token; an expert without tokens does not run."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(Expert() for _ in range(3))
        self.idle = []

    def forward(self, x):
        gate, chosen = self.router(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        self.idle.append([])
        for index, expert in enumerate(self.experts):
            rows = chosen == index
            if rows.any():
                out[rows] = gate[rows][:, None] * expert(x[rows])
            else:
                self.idle[-1].append(index)
        return x + out


class Mixture(nn.Module):
    credit_units = ("embed", "layers.0", "layers.1")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, WIDTH)
        self.layers = nn.ModuleList(Top1() for _ in range(2))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h.mean(1))


class Masked(nn.Module):
    """Experts that see every row where they run, each a unit of its own."""

    credit_units = ("experts.0", "experts.1", "experts.2")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(5, 3).requires_grad_(False)
        self.experts = nn.ModuleList(nn.Linear(5, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        chosen = self.router(x.mean(1)).argmax(-1)
        h = torch.zeros(len(x), WIDTH, dtype=x.dtype)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index)[:, None]
            if rows.any():
                h = h + rows * expert(x.mean(1))
        return self.head(h)


def data(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, TOKENS, 5, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def batches(count):
    """Small ones, so that experts go without rows."""
    x, y = data(4 * count, seed=3)
    return list(zip(x.double().split(4), y.split(4), strict=True))


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.01)


def matrix_of(name, rows, columns):
    seed = derive_seed(SEED, name)
    return draw_feedback((rows, columns), fan_in=columns, fan_out=rows, seed=seed).double()


def run_by_hand(net, x):
    """Logits, the units' outputs in graphs of their own, and what the net goes on with."""
    outputs, handed_on, handles = {}, {}, []

    def before(_, args):
        return tuple(a.detach() for a in args)

    for name in net.credit_units:

        def after(_, __, output, name=name):
            outputs[name] = output
            handed_on[name] = output.detach().requires_grad_().clone()
            return handed_on[name]

        unit = net.get_submodule(name)
        handles.append(unit.register_forward_pre_hook(before))
        handles.append(unit.register_forward_hook(after))
    logits = net(x)
    for handle in handles:
        handle.remove()
    return logits, outputs, handed_on


def by_hand(net, steps, optimizer, chained):
    """The update written out: every unit on a detached input, <f, credit> where it ran."""
    stepper = optimizer(net.parameters())
    idle = 0
    for x, y in steps:
        logits, outputs, handed_on = run_by_hand(net, x)
        ran = list(outputs)
        idle += len(net.credit_units) - len(ran)
        loss = F.cross_entropy(logits, y)
        source = handed_on[ran[-1]] if chained and ran else logits
        (error,) = torch.autograd.grad(loss, source, retain_graph=True)
        credits = {}
        for lower, upper in reversed(list(pairwise([*ran, None]))):
            f = outputs[lower]
            if not chained:
                matrix = matrix_of(lower, f[0].numel(), CLASSES)
                credits[lower] = (error @ matrix.T).reshape(f.shape)
            elif upper is None:
                credits[lower] = error
            else:
                credits[lower] = credits[upper] @ matrix_of(lower, WIDTH, WIDTH).T
        stepper.zero_grad()
        # The readout's gradient is the loss's own, and that of a unit its credit's alone.
        (loss + sum((outputs[name] * credits[name]).sum() for name in ran)).backward()
        stepper.step()
    return idle


@pytest.mark.parametrize("optimizer", [adamw, momentum])
@pytest.mark.parametrize(
    ("net", "kind"),
    # Experts beside one another are not a chain.
    [(LayerDrop, DFA), (LayerDrop, BlockFA), (Mixture, DFA), (Mixture, BlockFA), (Masked, DFA)],
)
def test_sixty_steps_are_those_of_the_loop_written_out(net, kind, optimizer):
    rule = seeded(lambda: kind(net(), TASK, optimizer=optimizer, feedback_seed=SEED))
    rule.double().train()
    twin, own = copy.deepcopy(rule.net), optimizer(rule.net.parameters())
    steps = batches(STEPS)
    seed_everything(5, verbose=False)
    idle = by_hand(twin, steps, optimizer, chained=kind is BlockFA)
    seed_everything(5, verbose=False)
    for batch in steps:
        own.zero_grad()
        rule.surrogate(batch)[1].backward()
        own.step()
    for (name, value), expected in zip(rule.net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)
    if net is Mixture:
        assert sum(len(now) for layer in rule.net.layers for now in layer.idle) > 20
    else:
        assert idle > 20


def stepped(rule, batch):
    rule.zero_grad()
    rule.surrogate(batch)[1].backward()
    return {name: parameter.grad for name, parameter in rule.net.named_parameters()}


def chosen(kind, **kwargs):
    return seeded(lambda: kind(Chosen(), TASK, feedback_seed=SEED, **kwargs))


LOCAL = [
    (DFA, {}),
    (DFA, {"shared_feedback": True}),
    (DFA, {"normalize_credit": True}),
    (DFA, {"recompute": True}),
    (BlockFA, {}),
    (BlockFA, {"normalize_credit": True}),
    (BlockFA, {"top": "random"}),
    (BlockFA, {"recompute": True}),
]


@pytest.mark.parametrize(("kind", "kwargs"), LOCAL)
@pytest.mark.parametrize("running", [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_an_idle_unit_has_no_gradient_as_under_backpropagation(kind, kwargs, running):
    rule, exact = chosen(kind, **kwargs), seeded(lambda: BP(Chosen(), TASK))
    rule.net.running = exact.net.running = running
    own, true = stepped(rule, data()), stepped(exact, data())
    assert {name for name, g in own.items() if g is None} == {
        name for name, g in true.items() if g is None
    }
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(own[name], true[name])
    assert rule.credit(data()).keys() == {f"net.blocks.{index}" for index in running}


@pytest.mark.parametrize(("kind", "kwargs"), LOCAL)
def test_the_matrices_do_not_depend_on_the_order_of_first_runs(kind, kwargs):
    def drawn(*passes):
        rule = chosen(kind, **kwargs)
        for rule.net.running in passes:
            stepped(rule, data())
        return rule.state_dict()

    whole = drawn((0, 1, 2))
    for passes in [((2,), (0, 2), (0, 1, 2)), ((0, 1), (), (0, 1, 2)), ((1,), (0,), (0, 1, 2))]:
        found = drawn(*passes)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_the_credit_past_a_skipped_unit_is_that_past_an_identity():
    rule = chosen(BlockFA)
    stepped(rule, data())
    matrices = {name: pair.feedback for name, pair in rule.feedback_matrices().items()}
    rule.net.running = (0, 2)
    credit = rule.credit(data())
    expected = credit["net.blocks.2"] @ matrices["net.blocks.0"].T
    torch.testing.assert_close(credit["net.blocks.0"], expected)
    rule.net.running = (0, 1)
    exact = seeded(lambda: BP(Chosen(), TASK))
    exact.net.running = (0, 1)
    credit, true = rule.credit(data()), exact.credit(data())
    torch.testing.assert_close(credit["net.blocks.1"], true["net.blocks.1"])


@pytest.mark.parametrize(("kind", "kwargs"), LOCAL)
def test_a_state_with_some_matrices_goes_on_as_it_was(kind, kwargs):
    passes = [(1,), (1, 2), (0, 1), (0, 1, 2), (2,)]

    def gradients_after(rule, start):
        return [
            g
            for rule.net.running in passes[start:]
            for g in stepped(rule, data()).values()
            if g is not None
        ]

    whole = gradients_after(chosen(kind, **kwargs), 0)
    for cut in range(1, len(passes)):
        before, after = chosen(kind, **kwargs), chosen(kind, **kwargs)
        for before.net.running in passes[:cut]:
            stepped(before, data())
        # Also into a rule that has drawn more than the state holds.
        stepped(after, data())
        after.load_state_dict(before.state_dict())
        after.net.running = passes[cut]
        found = gradients_after(after, cut)
        assert all(torch.equal(a, b) for a, b in zip(found, whole[-len(found) :], strict=True))


def test_an_older_state_does_not_tell_the_rows_of_units():
    old, rule = chosen(DFA), chosen(DFA)
    stepped(old, data())
    state = old.state_dict()
    del state["feedback.widths"]
    rule.load_state_dict(state)
    rule.net.running = (0, 1)
    with pytest.raises(ValueError, match=r"units blocks\.2 did not run.*does not tell"):
        stepped(rule, data())
    rule.net.running = (0, 1, 2)
    stepped(rule, data())
    rule.net.running = (0, 1)
    found = stepped(rule, data())
    old.net.running = (0, 1)
    expected = stepped(old, data())
    assert all(torch.equal(found[n], g) for n, g in expected.items() if g is not None)


class Routed(nn.Module):
    """Experts that see the rows that are theirs."""

    credit_units = ("experts.0", "experts.1", "experts.2")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(5, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = x.mean(1)
        chosen = torch.arange(len(x)) % 3
        h = torch.zeros(len(x), WIDTH)
        for index, expert in enumerate(self.experts):
            h[chosen == index] = expert(x[chosen == index])
        return self.head(h)


@pytest.mark.parametrize("kwargs", [{}, {"top": "random"}])
@pytest.mark.parametrize("kind", [DFA, BlockFA])
def test_units_that_run_for_some_rows_are_refused_by_name(kind, kwargs):
    rule = kind(Routed(), TASK, **(kwargs if kind is BlockFA else {}))
    x, y = data(7)  # 3, 2 and 2 rows
    with pytest.raises(ValueError, match=r"unit 'experts\.\d' hands on .* expected \d rows"):
        stepped(rule, (x, y))


@pytest.mark.parametrize("kind", [DFA, BlockFA, FA, BP])
def test_a_run_says_once_which_units_never_ran(kind, tmp_path, recwarn):
    rule = seeded(lambda: kind(Chosen(), TASK))
    rule.net.running = (0, 2)
    loader = TensorLoader(data(), batch_size=8, seed=0)
    quiet_trainer(max_epochs=3, default_root_dir=tmp_path).fit(rule, loader)
    said = [str(w.message) for w in recwarn if "did not run in the first epoch" in str(w.message)]
    local = kind in (DFA, BlockFA)
    assert len(said) == local
    assert not local or said[0].startswith(f"{kind.__name__}: units blocks.1 did not run")


@pytest.mark.parametrize("kind", [DFA, BlockFA])
def test_a_unit_that_runs_in_part_is_refused(kind):
    class Part(Chosen):
        def forward(self, x):
            h = x.mean(1)
            h = self.blocks[1](self.blocks[0](h)) if self.running else self.blocks[1](h)
            return self.head(self.blocks[2](h))

    names = {"units": ["blocks.0+blocks.1", "blocks.2"], "readout": ["head"]}
    rule = kind(Part(), TASK, **names)
    stepped(rule, data())
    rule.net.running = ()
    with pytest.raises(ValueError, match=r"units blocks\.0\+blocks\.1 did not run to their end"):
        stepped(rule, data())


@pytest.mark.slow
def test_two_processes_stay_in_step_and_equal_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_all(1, one)
    run_module("tests.rules.idle_worker", 2, two)
    for kind in RULES:
        for net in ("Alike", "Apart"):
            first, second = (
                torch.load(two / f"{kind}-{net}-{rank}.pt", weights_only=True) for rank in (0, 1)
            )
            assert all(torch.equal(first[name], value) for name, value in second.items())
        alone = torch.load(one / f"{kind}-Alike-0.pt", weights_only=True)
        both = torch.load(two / f"{kind}-Alike-0.pt", weights_only=True)
        for name, value in alone.items():
            torch.testing.assert_close(both[name], value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize(("kind", "kwargs"), LOCAL)
def test_that_all_units_are_frozen_is_no_error(kind, kwargs):
    rule = chosen(kind, **kwargs)
    rule.net.blocks.requires_grad_(False)
    gradients = stepped(rule, data())
    assert {name for name, g in gradients.items() if g is not None} == {"head.weight", "head.bias"}
    assert rule.credit(data()).keys() == {f"net.blocks.{index}" for index in range(3)}
