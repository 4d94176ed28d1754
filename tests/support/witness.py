"""Callbacks that see what another one leaves behind."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback


def hooks(module):
    """How many hooks are registered, and which methods are overridden on an instance."""
    found = {}
    for name, child in module.named_modules():
        count = sum(len(v) for k, v in vars(child).items() if k.endswith("_hooks") and v)
        found[name] = (count, sorted({"forward", "log", "log_dict"} & set(vars(child))))
    return found


def traces(module):
    """All that a measurement must leave as it is, in a form that compares."""
    return {
        "hooks": hooks(module),
        "modes": [child.training for child in module.modules()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "places": [(p.data_ptr(), p.dtype) for p in module.parameters()],
        "state": {k: v.tolist() for k, v in module.state_dict().items() if "feedback" not in k},
        "lists": {k: list(v) for k, v in vars(module).items() if k in ("outputs", "seen")},
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


class Witness(Callback):
    """Stands before a callback, and its ``after`` behind it; both look at every hook."""

    def __init__(self):
        self.before: Any = None
        self.compared = 0
        self.after = _After(self)

    def look(self, module):
        self.before = traces(module)

    def on_train_start(self, trainer, pl_module):
        self.look(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.look(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.look(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.look(pl_module)

    def on_train_end(self, trainer, pl_module):
        self.look(pl_module)


class _After(Callback):
    def __init__(self, witness):
        self.witness = witness

    def compare(self, module):
        now = traces(module)
        for what, value in self.witness.before.items():
            assert now[what] == value, what
        self.witness.compared += 1

    def on_train_start(self, trainer, pl_module):
        self.compare(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.compare(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.compare(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.compare(pl_module)

    def on_train_end(self, trainer, pl_module):
        self.compare(pl_module)
