"""Frozen parts, adapters, and weights that are computed from other parameters."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from lit_credit.callbacks import EmbeddingGeometry, HeadAttribution
from lit_credit.callbacks.credit.double_precision import double_precision
from lit_credit.rules import DFA, FA
from tests import support
from tests.support import WIDTH, Validated
from tests.support.watched import diagnostics, finite, values, watched


class Adapter(nn.Module):
    """W + a b, as a parametrization."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(0.1 * torch.ones(s)) for s in ((WIDTH, 2), (2, WIDTH)))

    def forward(self, weight):
        return weight + self.a @ self.b


class LoRALinear(nn.Module):
    """The same as a module around a Linear."""

    def __init__(self, base):
        super().__init__()
        self.base, self.delta = base, Adapter()

    def forward(self, x):
        return self.base(x) + x @ self.delta(torch.zeros(WIDTH, WIDTH)).T


def frozen_front(net):
    net.embed.requires_grad_(False)


def only_head(net):
    net.requires_grad_(False)
    net.head.requires_grad_(True)


def adapters(net):
    net.requires_grad_(False)
    for block in net.blocks:
        block[0] = LoRALinear(block[0])


def parametrized(register):
    def change(net):
        for block in net.blocks:
            register(block[0])

    return change


def low_rank(layer):
    layer.requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", Adapter())


CHANGES = {
    "frozen front": frozen_front,
    "only the head": only_head,
    "adapters": adapters,
    "low rank": parametrized(low_rank),
    "orthogonal": parametrized(parametrizations.orthogonal),
    "weight norm": parametrized(parametrizations.weight_norm),
    "spectral norm": parametrized(parametrizations.spectral_norm),
}
COMPUTED = ["low rank", "orthogonal", "weight norm", "spectral norm"]


def net(kind):
    def make():
        made = support.NoisyNet()
        CHANGES[kind](made)
        return made

    return make


@pytest.mark.parametrize("kind", CHANGES)
def test_a_foreign_module(kind, tmp_path):
    callbacks = watched(tmp_path, lambda: Validated(net(kind)))
    assert finite(callbacks[:4])
    found = values(callbacks)
    # The gradient goes all the way down, also where nothing learns.
    assert found["gradient/norm/L00"] > 0
    assert found["reference/cosine/L00"] > 0.999
    updates = {tag for tag in found if tag.startswith("credit/update/")}
    learning = [n for n, p in Validated(net(kind)).named_parameters() if p.requires_grad]
    assert updates == {f"credit/update/{name}" for name in learning}


@pytest.mark.parametrize("kind", ["only the head", "adapters", "low rank", "spectral norm"])
def test_a_rule_with_credit_at_the_borders_of_units(kind, tmp_path):
    callbacks = watched(
        tmp_path, lambda: support.rule(DFA, net(kind)), diagnostics(units=None, every_n_steps=2)
    )
    assert finite(callbacks[:4])


@pytest.mark.parametrize("kind", COMPUTED)
def test_feedback_in_place_of_a_computed_weight_is_refused_by_name(kind):
    with pytest.raises(ValueError, match=r"`blocks\.0\.0` \(.*computed from other.*`leave_exact`"):
        support.rule(FA, net(kind))


def test_feedback_around_a_computed_weight_and_around_adapters(tmp_path):
    for kind in ("low rank", "adapters"):
        watched(
            tmp_path,
            lambda kind=kind: support.rule(FA, net(kind), leave_exact=["blocks.*.0"]),
            diagnostics(units=None),
        )


def test_float64_reaches_what_a_weight_is_computed_from():
    for kind in COMPUTED:
        module = net(kind)().eval()
        before = {n: (p.dtype, p.data_ptr()) for n, p in module.named_parameters()}
        output = module(torch.ones(2, support.FEATURES))
        with double_precision(module):
            double = module(torch.ones(2, support.FEATURES, dtype=torch.float64))
            assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), output, rtol=1e-5, atol=1e-6)
        assert before == {n: (p.dtype, p.data_ptr()) for n, p in module.named_parameters()}


def test_diagnostics_that_read_weights_read_the_computed_ones(tmp_path):
    def make():
        module = Validated(support.SymbolNet)
        attention = module.model.embed[3].attention
        attention.requires_grad_(False)
        parametrize.register_parametrization(attention.out_proj, "weight", Adapter())
        parametrizations.orthogonal(module.model.head)
        return module

    kinds = (EmbeddingGeometry, HeadAttribution)
    seen = values(watched(tmp_path, make, [kind(figure=False) for kind in kinds]))
    # Of the computed weight the rows are orthogonal; of what it is computed from they are not.
    (cos2,) = (v for k, v in seen.items() if k.startswith("geometry/cos2/") and k.endswith("head"))
    assert cos2 == pytest.approx(0, abs=1e-6)
