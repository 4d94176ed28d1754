"""Trains every rule and saves the weights: ``python -m tests.rules.ddp_worker DEVICES FOLDER``."""

import sys
import warnings
from pathlib import Path

import torch

from lit_credit import rules
from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms, ScaleStability
from lit_credit.datamodules import Digits
from lit_credit.models import EnergyMLP, ResidualMLP
from lit_credit.tasks import Classification
from tests.foreign.spawn_worker import train as train_foreign
from tests.support import quiet_trainer, seeded

RULES = {
    "BP": {},
    "FA": {"updates_per_step": 4},
    "BlockFA": {
        "normalize_credit": True,
        "clip_norm": 1.0,
        "compile": hasattr(torch.compiler, "set_stance") and {"backend": "aot_eager"},
    },
    "DFA": {"normalize_credit": True, "clip_per_unit": {"blocks.*": 1.0}},
    "FrozenUnits": {"frozen": ["blocks.*"]},
    "KolenPollack": {"clip_norm": 1.0},
    "WeightMirror": {},
    "DirectKolenPollack": {"rank": 4},
    "FDFA": {"scale_penalty": 0.01},
    "LocalLosses": {"loss": "pred", "prediction": "sum"},
    "PEPITA": {},
    "PredictiveCoding": {"iterations": 4},
    "ForwardGradient": {},
    "ForwardGradient, weights": {"perturb": "weights", "clip_norm": 0.1},
    "TargetPropagation": {},
    "ForwardForward": {},
    "EquilibriumPropagation": {"nudging": "random_sign", "beta": 0.5},
}
NETS = {"EquilibriumPropagation": lambda: EnergyMLP(64, [16, 12], steps=15)}
"""Nets of rules that do not train every net."""


def sgd(parameters):
    # Adam turns the rounding of a vanishing gradient into a step of full size.
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def train(kind: str, devices: int, folder: Path) -> None:
    net = seeded(NETS.get(kind, lambda: ResidualMLP(64, width=16, depth=2)))
    make = getattr(rules, kind.partition(",")[0])
    rule = make(net, Classification(), optimizer=sgd, **RULES[kind])
    trainer = quiet_trainer(
        max_epochs=2,
        # The last batch has an odd row, which two processes leave out.
        limit_train_batches=8 // rule.updates_per_step,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        default_root_dir=folder / kind,
        callbacks=[
            *(
                watch(n_samples=32, figure=False)
                for watch in (ResidualNorms, GradientNorms, ScaleStability)
            ),
            CreditAlignment(figure=False),
        ],
    )
    trainer.fit(rule, datamodule=Digits(batch_size=96, seed=0, val_split=0))
    if trainer.is_global_zero:
        torch.save(rule.state_dict(), folder / f"{kind}.pt")


def train_all(devices: int, folder: Path) -> None:
    for kind in RULES:
        train(kind, devices, folder)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    train_all(int(sys.argv[1]), Path(sys.argv[2]))
    for watch in (False, True):
        train_foreign("ddp", Path(sys.argv[2], "foreign", str(watch)), watch)
