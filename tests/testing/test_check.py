"""The check of a diagnostic, on callbacks that break the contract."""

import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lit_credit.callbacks import GradientNorms
from lit_credit.testing import STATES, check_diagnostic


class Leaking(Callback):
    """Does something to the module after the last batch."""

    def __init__(self, leak):
        self.leak = leak

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.is_last_batch:
            self.leak(pl_module)


def run_state(module):
    for part in module.net.states.values():
        part(torch.ones(2, 3))


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_goes_on_is_named(state):
    make = partial(Leaking, run_state)
    with pytest.raises(AssertionError, match=rf"(?s)Leaking.*'automatic'.*net\.states\.{state}\."):
        check_diagnostic(make, kinds=["automatic"], states=[state])


def shift(module):
    module.net.net.last.bias.data.add_(1e-6)


LEAKS = {
    r"net\.net\.last\.bias": shift,
    r"net\.net\.first\[?\.?0\]?\.weight": lambda m: m.net.net.first[0].weight.requires_grad_(False),
    r"net\.net\.second.*training": lambda m: m.net.net.second[1].eval(),
    r"_forward_hooks": lambda m: m.net.net.register_forward_hook(partial(print, sep="")),
    r"process's torch": lambda m: torch.rand(()),
    r"process's random": lambda m: random.random(),
    r"process's numpy": lambda m: np.random.rand(),  # noqa: NPY002
    "points": lambda m: m.logger.log_metrics({"user/metric": 1.0}),
    "lr": lambda m: m.trainer.optimizers[0].param_groups[0].update(lr=0.1),
    r"outputs\[3\]": lambda m: m.outputs.append(0.0),
}


@pytest.mark.parametrize("what", LEAKS)
def test_what_else_is_left_behind_is_named(what):
    with pytest.raises(AssertionError, match=rf"(?s)Leaking.*{what}"):
        check_diagnostic(partial(Leaking, LEAKS[what]), kinds=["automatic"], states=[])


def test_each_state_by_itself_and_a_rule():
    make = partial(GradientNorms, every_n_steps=1, n_samples=5, figure=False)
    assert check_diagnostic(make, kinds=["DFA"], states=["buffer", "carry"], together=False) == 2
    with pytest.raises(AssertionError, match=r"(?s)'DFA'.*net\.net\.last\.bias"):
        check_diagnostic(partial(Leaking, shift), kinds=["DFA"], states=[])


def test_it_needs_no_test_framework():
    code = "import sys, lit_credit.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
