"""A callback for runs in processes of their own."""

import sys

from lightning.pytorch import Callback


class Waiting(Callback):
    """Says that the run has begun, and waits for a line before it measures or writes anything."""

    def setup(self, trainer, pl_module, stage):
        print("begun", flush=True)
        sys.stdin.readline()
