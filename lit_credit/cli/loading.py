"""Saying what a command waits for while it imports PyTorch and Lightning."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

__all__ = ["say_loading"]

_PATIENCE = 5.0
"""Seconds without a line where nobody may be watching: in a log or a pipe."""


@contextmanager
def say_loading(what: str = "PyTorch and Lightning") -> Iterator[None]:
    """Say what is loaded: at once on a terminal, elsewhere only if it takes long.

    The imports within the ``with`` run without garbage collection: they leave none.

    Args:
        what: names of the packages.
    """
    collects = gc.isenabled()
    timer = Timer(_PATIENCE, _say, [what])
    timer.daemon = True
    # Of several processes of a run, the first one speaks.
    if os.environ.get("LOCAL_RANK", "0") == "0" and "lightning.pytorch" not in sys.modules:
        if sys.stderr.isatty():
            _say(what)
        else:
            timer.start()
    gc.disable()
    try:
        yield
    finally:
        timer.cancel()
        if collects:
            gc.enable()


def _say(what: str) -> None:
    print(f"Loading {what} ...", file=sys.stderr, flush=True)
