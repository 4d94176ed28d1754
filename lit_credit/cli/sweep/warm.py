"""Loading once, in the process that cells are forked from, what most cells would load each.

Importing this module does the work. ``multiprocessing`` imports it in its fork server.
"""

import gc
from contextlib import suppress

from lit_credit.cli.configuration import read_words
from lit_credit.cli.sweep import run
from lit_credit.datamodules import Digits

__all__: list[str] = []

_WORDS = (
    "--model.class_path=BP",
    "--model.init_args.task=Classification",
    "--model.init_args.net.class_path=MLP",
    "--model.init_args.net.init_args.in_features=1",
    "--model.init_args.optimizer.class_path=torch.optim.AdamW",
    "--data=Digits",
)
"""Common classes: the parsers of their arguments are built here."""


def _warm() -> None:
    with suppress(ImportError):  # without TensorBoard a run names the package itself
        from torch.utils.tensorboard.summary import hparams

        hparams({}, {})  # type: ignore[no-untyped-call]  # it imports more
    with suppress(ImportError):  # without scikit-learn
        Digits().read(train=True)
    with suppress(ValueError):
        read_words(_WORDS)
    # Garbage collection in a cell skips all this, and so need not copy the memory pages.
    gc.collect()
    gc.freeze()


_ = run
_warm()
