"""Units without parameters, and with frozen ones, in diagnostics of parameters."""

import math

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_credit import diagnose
from lit_credit.callbacks import GradientNoise, Sharpness, StepQuality
from lit_credit.rules import BP
from lit_credit.tasks import Classification
from tests import support

KINDS = [GradientNoise, Sharpness, StepQuality]


def flat():
    net = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))
    return BP(net, Classification(4))


@pytest.mark.parametrize("kind", KINDS)
def test_units_without_parameters_are_refused(kind):
    with pytest.raises(MisconfigurationException, match=r"`units`: 1 has no parameters"):
        diagnose(flat(), kind(units=["1"]), support.tensors(20))


@pytest.mark.parametrize("kind", [GradientNoise, Sharpness])
def test_a_module_without_parameters_is_refused(kind):
    def loss(module, batch):
        return module(batch[0]).square().mean()

    with pytest.raises(MisconfigurationException, match="has no parameters to measure"):
        diagnose(nn.Tanh(), kind(), support.tensors(20), loss=loss)


def test_units_joined_with_an_activation_have_its_layers_parameters():
    for kind in KINDS:
        found = diagnose(flat(), kind(units=["0+1"], figure=False), support.tensors(20))
        values = next(iter(found.values())).rows[-1]["values"]
        assert any(math.isfinite(value) for value in values.values())


def test_a_step_without_trained_parameters_is_told():
    rule = flat()
    rule.net[0].requires_grad_(False)
    with pytest.warns(UserWarning, match=r"no parameter in 0 is trained"):
        found = diagnose(rule, StepQuality(units=["0"], figure=False), support.tensors(20))
    assert math.isnan(found["step_quality"].rows[-1]["values"]["step/change"])
