"""Averages of weights: training is not changed, and measured are the weights being trained."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging

from lit_credit.rules import BP, DFA
from tests import support
from tests.support import Validated, same_state
from tests.support.watched import WeightSum, diagnostics, fit

averaging = pytest.importorskip(
    "lightning.pytorch.callbacks.weight_averaging", reason="came with Lightning 2.6"
)
MODULES = {"foreign": Validated, "BP": lambda: support.rule(BP), "DFA": lambda: support.rule(DFA)}


def averages():
    return averaging.EMAWeightAveraging(decay=0.5)


def stochastic():
    return StochasticWeightAveraging(1e-2, swa_epoch_start=1)


class Weights(Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.kept = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.kept.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_diagnostics_look_at_the_weights_being_trained(make, tmp_path):
    class Behind(WeightSum):
        """Another class, so that one Trainer takes both with equal arguments."""

    alone, before, behind = (kind(every_n_epochs=2) for kind in (WeightSum, WeightSum, Behind))
    fit(tmp_path, make(), alone, max_epochs=3)
    weights = Weights()
    module = make()
    fit(tmp_path, module, before, averages(), behind, weights, max_epochs=3)
    assert [row["epoch"] for row in alone.history.rows] == [0, 2, 3]
    for callback in (before, behind):  # in either order of the callbacks
        found = [list(row["values"].values()) for row in callback.history.rows]
        assert found == [list(row["values"].values()) for row in alone.history.rows]
    # The module ends with the average of what was trained, and only that.
    average = weights.kept[0]
    for kept in weights.kept[1:]:
        average = {name: value.lerp(kept[name], 0.5) for name, value in average.items()}
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), average[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "average", "first"),
    [
        (Validated, averages, True),
        (Validated, stochastic, True),
        (Validated, stochastic, False),
        (MODULES["DFA"], averages, False),
    ],
)
def test_averaged_weights_are_the_same_to_the_bit(make, average, first, tmp_path):
    runs = []
    for watch in (False, True):
        module, known = make(), {} if make is Validated else {"units": None}
        callbacks = diagnostics(**known) if watch else []
        order = [average(), *callbacks] if first else [*callbacks, average()]
        fit(tmp_path, module, *order, max_epochs=2)
        runs.append(module)
    assert same_state(*runs)
    assert len(callbacks[0].history.rows) >= 3


def test_a_rule_refuses_the_averaging_that_needs_automatic_optimization(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"last pass.*EMAWeightAveraging"):
        fit(tmp_path, support.rule(DFA), stochastic())
