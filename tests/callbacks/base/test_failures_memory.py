"""Out of memory names the diagnostic, and what takes less."""

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_credit.callbacks import CircuitMatching, HeadBehaviour, ResidualNorms, WeightAlignment
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.failures import is_out_of_memory, out_of_memory_named
from lit_credit.inspect.probe.probe import Probe
from lit_credit.rules import BP
from tests import support
from tests.callbacks import twin

TOO_MUCH = 2**50


def cpu():
    torch.empty(TOO_MUCH)


def numpy():
    np.empty(TOO_MUCH)


def raising(error):
    def run():
        raise error

    return run


CASES = {
    "torch on the CPU": cpu,
    "numpy": numpy,
    "python": raising(MemoryError()),
    "CUDA": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")),
    "MPS": raising(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)")),
    "cuBLAS": raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ...")),
}


@pytest.mark.parametrize("kind", CASES)
def test_errors_of_all_kinds_are_named(kind):
    callback = ResidualNorms()
    callback.probe = Probe([torch.ones(6), torch.ones(2)], [6, 2])
    callback.gathered.add("norm", torch.ones(3))
    expected = "ResidualNorms ran out of memory.*set `chunk_size=3`, half of the 6 rows"
    with (
        pytest.raises(MisconfigurationException, match=expected) as caught,
        out_of_memory_named(callback),
    ):
        CASES[kind]()
    assert is_out_of_memory(caught.value.__cause__)
    assert len(str(caught.value)) < 500
    assert "norm" not in callback.gathered


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("x")]
)
def test_other_errors_stay(error):
    with pytest.raises(type(error)), out_of_memory_named(ResidualNorms()):
        raise error
    assert not is_out_of_memory(error)


def test_each_diagnostic_knows_what_takes_less():
    single = ResidualNorms()
    single.probe = Probe([torch.ones(1)], [1])
    assert "fewer `units`" in single.smaller()
    assert "`n_samples=8`" in HeadBehaviour().smaller()
    assert "fewer `units`" in HeadBehaviour(n_samples=1).smaller()
    assert "fewer `units`" in CircuitMatching().smaller()
    assert "leave it out" in WeightAlignment().smaller()


def test_a_measurement_that_runs_out_ends_with_the_remedy(tmp_path):
    class Hungry(ResidualNorms):
        def update(self, chunk: Chunk) -> None:
            cpu()

    module = twin.make(BP)
    loader = support.train_loader()
    with pytest.raises(
        MisconfigurationException, match=r"Hungry ran out of memory.*`chunk_size=4`"
    ):
        support.trainer(tmp_path, callbacks=[Hungry()]).fit(module, loader, loader)
