"""What goes wrong in a run."""

import os
import signal
import time
from pathlib import Path

from lightning.pytorch import Callback


class Killed(Callback):
    """Dies as by the hand of an out-of-memory killer."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Held(Callback):
    """Waits at a batch for as long as the file ``hold`` exists, and says so in a file ``held``."""

    def __init__(self, hold: str, epoch: int = 2, batch: int = 0):
        self.hold, self.place = Path(hold), (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place and self.hold.exists():
            # Written once and renamed: who waits for it must not find it empty.
            scratch = self.hold.with_name("held.partial")
            scratch.write_text(str(os.getpid()))
            scratch.replace(self.hold.with_name("held"))
            while self.hold.exists() and not trainer.received_sigterm:
                time.sleep(0.05)
