"""Seeds, generators, and saving and restoring the random states of a process."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

__all__ = [
    "generator_of",
    "preserved_rng",
    "put_back",
    "random_state",
    "run_seed",
    "set_random_state",
]


def run_seed() -> int:
    """The seed given to ``seed_everything`` in this process or its parent; 0 if none was given."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def generator_of(*key: int) -> torch.Generator:
    """A CPU generator whose numbers depend on its key alone.

    Keys that differ by one, or by the order of their numbers, give different streams. Zeros at the
    end of a key change nothing.

    Args:
        *key: non-negative whole numbers, the seed first.

    Example:
        >>> one, other = (torch.rand((), generator=generator_of(7, 1, 0)) for _ in range(2))
        >>> bool(one == other)
        True
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The states of python, numpy, torch and every CUDA device, loadable with ``weights_only``."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states that :func:`random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the random states of python, numpy, torch and every used CUDA device on exit."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    # An unused device has no state to lose, and asking for its state would initialise CUDA.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def put_back(generator: Any) -> Callable[[], object]:
    """Make a function that resets a generator of python, numpy or torch to its current state.

    Example:
        >>> draws = random.Random(0)
        >>> again = put_back(draws)
        >>> first, _ = draws.random(), again()
        >>> draws.random() == first
        True
    """
    if isinstance(generator, np.random.Generator | np.random.BitGenerator):
        bits: Any = getattr(generator, "bit_generator", generator)
        return partial(setattr, bits, "state", bits.state)
    if isinstance(generator, random.SystemRandom):  # it has no state
        return lambda: None
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(generator.set_state, generator.get_state())
