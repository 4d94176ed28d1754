"""`compile: true`: the update of every rule as one graph, equal to the eager one."""

import copy
import inspect
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

from lit_credit import rules
from lit_credit.callbacks import CreditAlignment
from lit_credit.datamodules import Digits
from lit_credit.feedback import Credits
from lit_credit.models import GPT, MLP, ResidualMLP
from lit_credit.rules import BP, DFA, FDFA, BlockFA, LocalLosses, LocalRule
from lit_credit.rules.cut import CutRule
from lit_credit.tasks import Classification, NextToken
from tests.support import quiet_trainer, seeded

pytestmark = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="`compile` needs torch 2.6"
)
# The graph is traced and differentiated as with the default backend, but no C++ is compiled.
TRACED = {"backend": "aot_eager"}
MLPS = {
    "BP": {},
    "FrozenUnits": {"frozen": ["layers.0"]},
    "FA": {},
    "KolenPollack": {},
    "WeightMirror": {},
    "BlockFA": {},
    "DFA": {},
    "DirectKolenPollack": {},
    "FDFA": {},
    "LocalLosses": {"loss": "predsim", "scale_penalty": 0.1},
}
OPTIONS = {
    "BlockFA, random top": (BlockFA, {"top": "random"}),
    "normalised": (DFA, {"normalize_credit": True}),
    "penalty": (DFA, {"scale_penalty": 0.5}),
    "shared": (DFA, {"shared_feedback": True}),
    "rank": (DFA, {"rank": 2}),
    "at the readout": (DFA, {"error_at": "readout", "normalize_credit": True}),
    "sign": (DFA, {"signal": "sign"}),
    "target": (DFA, {"signal": "target"}),
    "other rows": (DFA, {"units": ["layers.0.0->layers.1.0", "layers.1.0+layers.1.1"]}),
    "sum of heads": (LocalLosses, {"loss": "pred", "prediction": "sum", "readout": []}),
}


def mlp():
    return MLP(20, [12, 12], num_classes=5)


def images(rows=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 20, generator=generator), torch.arange(rows) % 5


def gradients(rule):
    """Gradients of all parameters, also those of feedback and heads."""
    return {n: p.grad.clone() for n, p in rule.named_parameters() if p.grad is not None}


def pair(kind, net, task, batch, **kwargs):
    """A rule, and the same rule compiled."""
    if kind is LocalLosses and kwargs.get("readout") == []:
        kwargs["stray"] = "freeze"
    made = [seeded(lambda c=c: kind(net(), task, compile=c, **kwargs)) for c in (False, TRACED)]
    for rule in made:
        if isinstance(rule, CutRule):
            rule.prepare(batch)
    return made


def equal(first, second, batch, scale=1.0):
    found = []
    for rule in (first, second):
        rule.zero_grad()
        loss, scalar = rule.surrogate(batch)
        (scale * scalar).backward()
        found.append((loss.detach(), gradients(rule)))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", MLPS)
def test_every_rule_has_the_gradients_of_its_eager_self(kind):
    eager, compiled = pair(getattr(rules, kind), mlp, Classification(5), images(), **MLPS[kind])
    equal(eager, compiled, images())
    equal(eager, compiled, images(5))  # a last batch with fewer rows


@pytest.mark.few(4)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    kind, options = OPTIONS[name]
    eager, compiled = pair(kind, mlp, Classification(5), images(), **options)
    equal(eager, compiled, images())
    equal(eager, compiled, images(), scale=1024.0)  # as by a GradScaler


@pytest.mark.parametrize("kind", ["DFA", "DirectKolenPollack"])
def test_a_unit_that_is_one_linear_layer(kind):
    def net():
        return ResidualMLP(20, 12, 5, 1)

    equal(*pair(getattr(rules, kind), net, Classification(5), images()), images())


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["FA", "DFA"])
def test_a_transformer(kind):
    tokens = torch.randint(7, (2, 3, 4), generator=torch.Generator().manual_seed(0)).unbind()
    equal(
        *pair(
            getattr(rules, kind),
            lambda: GPT(vocab_size=7, block_size=4, width=8, heads=2, depth=1),
            NextToken(),
            tokens,
        ),
        tokens,
    )


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["FA", "BlockFA", "DFA", "LocalLosses"])
def test_feature_maps(kind):
    def net():
        layers = [
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU()),
            nn.Flatten(),
            nn.Linear(54, 10),
        ]
        return nn.Sequential(*layers)

    maps = torch.randn(3, 3, 8, 8), torch.tensor([0, 4, 9])
    names = {} if kind == "FA" else {"units": ["0", "1"], "readout": ["3"]}
    equal(*pair(getattr(rules, kind), net, Classification(), maps, **names), maps)


def test_the_graph_is_one_and_serves_all_batches_of_a_shape():
    _, rule = pair(DFA, mlp, Classification(5), images())
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    rule.compile_options = {"backend": backend, "fullgraph": True}
    for _ in range(3):
        rule.surrogate(images())
    assert len(graphs) == 1


@pytest.mark.slow
def test_a_process_may_compile_many_rules():
    options = {"backend": "eager"}  # torch's limit for one function is 8
    for width in range(4, 14):
        rule = DFA(MLP(20, [width], num_classes=5), Classification(5), compile=options)
        rule.surrogate(images())


def test_a_copy_trains_itself():
    _, rule = pair(DFA, mlp, Classification(5), images())
    rule.surrogate(images())
    twin = copy.deepcopy(rule)
    rule.zero_grad()
    twin.surrogate(images())[1].backward()
    assert not gradients(rule)
    assert gradients(twin)


def test_a_replaced_submodule_is_trained():
    for compiled in (False, TRACED):
        rule = DFA(mlp(), Classification(5), compile=compiled)
        rule.surrogate(images())[1].backward()
        rule.net.layers[1] = nn.Sequential(nn.Linear(12, 12), nn.Tanh())
        rule.zero_grad()
        rule.surrogate(images())[1].backward()
        assert rule.net.layers[1][0].weight.grad is not None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_with_torchs_own_backend():
    eager = seeded(lambda: DFA(mlp(), Classification(5)))
    compiled = seeded(lambda: DFA(mlp(), Classification(5), compile=True))
    equal(eager, compiled, images())


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", [DFA, FDFA, LocalLosses])
def test_a_run_resumes_to_the_bit(kind, tmp_path):
    def run(epochs, checkpoint=None):
        seed_everything(3)
        rule = kind(ResidualMLP(64, 8, 10, 2), Classification(), compile=TRACED)
        trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=epochs)
        trainer.fit(
            rule, datamodule=Digits(batch_size=400, seed=0, val_split=0), ckpt_path=checkpoint
        )
        return trainer, rule

    _, whole = run(2)
    trainer, _ = run(1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    _, resumed = run(2, tmp_path / "first.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_diagnostics_measure_as_without(tmp_path):
    found = []
    for compiled in (False, TRACED):
        seed_everything(3)
        rule = DFA(ResidualMLP(64, 8, 10, 2), Classification(), compile=compiled)
        watch = CreditAlignment(figure=False)
        trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=1, callbacks=[watch])
        trainer.fit(rule, datamodule=Digits(batch_size=400, seed=0, val_split=0))
        found.append(watch.history.rows[-1]["values"])
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name


class ByName(nn.Module):
    """A net whose unit is given a tensor by name, and in a dict."""

    credit_units = ("a", "b")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.a, self.b = Named(), Named()
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        return self.head(self.b(x=self.a(x={"it": x})))


class Named(nn.Linear):
    def __init__(self):
        super().__init__(20, 20)

    def forward(self, *, x):
        return super().forward(x["it"] if isinstance(x, dict) else x).tanh()


def test_units_that_are_given_tensors_by_name():
    equal(*pair(DFA, ByName, Classification(5), images()), images())


class SendsTargets(LocalRule):
    def send(self, error, shapes, scale, batch):
        target = nn.functional.one_hot(self.task.target(batch), 5).to(error.dtype)
        return Credits(lambda name: target[:, :1].expand(shapes[name]) * scale)


def test_a_rule_of_ones_own():
    equal(*pair(SendsTargets, mlp, Classification(5), images()), images(), scale=8.0)


class ThroughNumpy(nn.Module):
    """A net that torch cannot read as one graph."""

    credit_units = ("hidden",)
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(20, 12), nn.Linear(12, 5)

    def forward(self, x):
        h = self.hidden(x)
        if float(np.asarray(h.detach().sum().item())) == 1.5:
            h = 2 * h
        return self.head(h)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
def test_a_net_that_is_not_one_graph_says_what_to_do():
    rule = DFA(ThroughNumpy(), Classification(5), compile=TRACED)
    with pytest.raises(ValueError, match=r"(?s)`compile` is set, .* ThroughNumpy .*fullgraph: fal"):
        rule.surrogate(images())
    eager = seeded(lambda: DFA(ThroughNumpy(), Classification(5)))
    parts = seeded(
        lambda: DFA(ThroughNumpy(), Classification(5), compile={**TRACED, "fullgraph": False})
    )
    equal(eager, parts, images())


@pytest.mark.parametrize("kind", [BP, DFA])
def test_an_error_of_the_first_batch_is_that_of_an_eager_rule(kind):
    rule = kind(mlp(), Classification(4), compile=TRACED)
    with pytest.raises(ValueError, match=r"^the net's output is \(8, 5\), expected \(8, 4\)"):
        rule.surrogate(images())


class DropsInTraining(ByName):
    def forward(self, x):
        return self.head(self.b(x=x) if self.training else self.b(x=self.a(x=x)))


@pytest.mark.parametrize(
    ("kind", "options"), [(DFA, {"error_at": "readout"}), (LocalLosses, {"loss": "pred"})]
)
def test_a_unit_must_run_in_training(kind, options):
    rule = kind(DropsInTraining(), Classification(5), compile=TRACED, **options)
    rule.prepare(images())
    with pytest.raises(
        ValueError, match=r"^units a do not run in a training step, which `compile`"
    ):
        rule.surrogate(images())


class Counts(ByName):
    steps = 0

    def forward(self, x):
        self.steps += 1
        return super().forward(x * self.steps)


@pytest.mark.skipif(
    "recompile_limit" not in inspect.signature(torch.compile).parameters,
    reason="this torch has no `recompile_limit`",
)
@pytest.mark.parametrize("kind", [BP, DFA])
def test_a_net_that_changes_at_every_step_goes_on_eagerly(kind):
    options = {"backend": "eager", "recompile_limit": 2}
    pair = [
        seeded(lambda c=c: kind(Counts(), Classification(5), compile=c)) for c in (False, options)
    ]

    def steps():
        for step in range(6):
            for rule in pair:
                rule.net.steps = step
            equal(*pair, images())

    with pytest.warns(UserWarning, match="has compiled Counts anew too often"):
        steps()


def test_units_that_share_input_and_weight_and_units_that_are_frozen():
    class Plain(nn.Module):
        credit_units, readout = ("a", "b"), ("head",)

        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 5)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.head((self.a(x) + self.b(x)).tanh())

    eager, compiled = pair(DFA, Plain, Classification(5), images())
    equal(eager, compiled, images())
    for rule in (eager, compiled):
        rule.net.requires_grad_(False)
        rule.net.head.requires_grad_(True)
    equal(eager, compiled, images())


def test_the_loss_is_exact_beside_a_large_penalty():
    losses = []
    for compiled in (False, TRACED):
        rule = seeded(lambda c=compiled: DFA(mlp(), Classification(5), compile=c, scale_penalty=1))
        with torch.no_grad():
            rule.net.layers[1][0].weight.mul_(1e20)
            rule.net.head.weight.mul_(1e-21)
        losses.append(rule.surrogate(images())[0])
    torch.testing.assert_close(*losses)
    assert losses[1].isfinite()


def test_a_pass_inside_of_a_pass_leaves_the_net_as_it_was():
    rule = DFA(mlp(), Classification(5))
    rule.prepare(images())
    rule.surrogate(images())
    handle = rule.net.layers[1][0].register_forward_hook(lambda *_: rule.credit(images()) and None)
    with pytest.raises(ValueError, match="runs more than once"):
        rule.surrogate(images())
    handle.remove()
    assert all("forward" not in vars(module) for module in rule.net.modules())
    rule.net(images()[0])
    rule.surrogate(images())[1].backward()


@pytest.mark.parametrize("compiled", [False, TRACED])
def test_a_linear_layer_with_a_forward_of_its_own_keeps_its_gradient(compiled):
    net = ResidualMLP(20, 12, 5, 1)
    layer = net.embed
    layer.forward = lambda x: nn.functional.linear(x, 3 * layer.weight, layer.bias)
    rule = DFA(net, Classification(5), compile=compiled)
    x, y = images()
    credit = rule.credit((x, y))["net.embed"]
    rule.surrogate((x, y))[1].backward()
    torch.testing.assert_close(layer.weight.grad, 3 * credit.T @ x)


def test_matrices_do_not_depend_on_compilation_in_half_precision(tmp_path):
    found = []
    for compiled in (False, TRACED):
        seed_everything(3)
        rule = DFA(ResidualMLP(64, 8, 10, 1), Classification(), compile=compiled)
        trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=1, precision="bf16-true")
        trainer.fit(rule, datamodule=Digits(batch_size=400, seed=0, val_split=0))
        found.append(rule.feedback.matrix)
    assert found[0].dtype == found[1].dtype
    assert torch.equal(*found)


def test_several_outputs_are_refused_by_name():
    class Two(ByName):
        def forward(self, x):
            y = super().forward(x)
            return y, y

    rule = DFA(Two(), Classification(5, aux_weight=0.3), compile=TRACED)
    with pytest.raises(ValueError, match="output is tuple, but this rule needs one tensor"):
        rule.surrogate(images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": {"modus": "x"}}, "`compile` is .*modus.*fullgraph"),
        ({"compile": "inductor"}, "`compile` is 'inductor', expected true"),
        ({"compile": True, "recompute": True}, "`compile` is True, but `recompute` is true"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        DFA(mlp(), Classification(5), **options)
    if "recompute" not in options:
        with pytest.raises(ValueError, match=message):
            BP(mlp(), Classification(5), **options)
