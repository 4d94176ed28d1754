"""Trains two adders: ``python -m tests.callbacks.training.ensemble_worker DEVICES FOLDER``."""

import sys
import warnings

from lit_credit.callbacks import MemberCheckpoints, SpacedCheckpoints
from lit_credit.models import Ensemble
from lit_credit.rules import BP
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from lit_credit.tasks import EachMember
from tests.support import quiet_trainer


def train(devices: int, folder: str) -> None:
    net = Ensemble(lambda: MicroAdder(digits=2), members=2, first_seed=3)
    trainer = quiet_trainer(
        max_epochs=1,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        default_root_dir=folder,
        callbacks=[MemberCheckpoints(), SpacedCheckpoints()],
    )
    data = Addition(2, 8, 2, val_size=10, val_chains=2, seed=0)
    trainer.fit(BP(net, EachMember(AdditionTask(2), 2)), datamodule=data)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    train(int(sys.argv[1]), sys.argv[2])
