import math

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from scipy.linalg import subspace_angles

from lit_credit.callbacks import SubspaceDistance
from tests import support
from tests.callbacks.representations.test_embedding_geometry import Pairs

SYMBOLS = 8


class Known(support.Data):
    """Rows whose log-probabilities are of a rank, and what spans them."""

    def __init__(self, spread=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.name = "known"
        self.basis = torch.randn(SYMBOLS, 3, generator=generator)
        self.rest = spread * torch.randn(12, SYMBOLS, generator=generator)

    def contexts(self):
        x, prior, _ = super().contexts()
        z = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(3)).double()
        return x, prior, (z @ self.basis.mT.double() + self.rest).softmax(-1)

    def spanning(self):
        return self.basis


def measured(module, data=None, **options):
    return support.measured(SubspaceDistance(**options), module, data)


def module():
    torch.manual_seed(0)
    return Pairs(SYMBOLS)


def slow(a, b):
    """Distance and angles by dense projectors and scipy."""
    p, q = (m @ np.linalg.pinv(m) for m in (a, b))
    return np.linalg.norm(p - q), np.rad2deg(subspace_angles(a, b))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("reference", ["basis", "spanning"])
def test_a_tensor_of_the_datamodule(reference, centred):
    net, data = module(), Known()
    with torch.no_grad():  # so that all five columns span three dimensions
        net.out.weight[:, 3:] = net.out.weight[:, :2]
    values = measured(net, data, data_reference=reference, centred=centred)
    a, b = net.out.weight[:, :3].detach().double().numpy(), data.basis.double().numpy()
    if centred:
        a, b = a - a.mean(0), b - b.mean(0)
    distance, angles = slow(a, b)
    assert values["distance/out"] == pytest.approx(distance)
    assert values["angle_max/out"] == pytest.approx(angles.max())
    assert values["angle_mean/out"] == pytest.approx(angles.mean())
    space = SYMBOLS - 1 if centred else SYMBOLS
    assert values["distance/random"] == pytest.approx(math.sqrt(6 * (1 - 3 / space)))


def test_the_log_probabilities_of_the_contexts_by_default():
    net, data = module(), Known(spread=0.1)
    values = measured(net, data, rank=3)
    logs = np.log(data.contexts()[2].numpy())
    logs -= logs.mean(1, keepdims=True)
    a = net.out.weight.detach().double().numpy()
    leading = np.linalg.svd(a - a.mean(0))[0][:, :3]
    distance, _ = slow(leading, np.linalg.svd(logs)[2][:3].T)
    assert values["distance/out"] == pytest.approx(distance)
    assert distance > 1
    with torch.no_grad():  # what spans them is found, whatever is added to all symbols
        net.out.weight[:, :3] = data.basis @ torch.randn(3, 3) + torch.randn(3)
        net.out.weight[:, 3:] = 0
    values = measured(net, Known(), rank=3)
    assert values["distance/out"] < 1e-6
    assert values["angle_max/out"] < 1e-4


def test_another_weight():
    net = module()
    net.other = torch.nn.Linear(4, SYMBOLS)
    values = measured(net, units=["out"], reference="other", rank=4, centred=False)
    a, b = (w.weight.detach().double().numpy() for w in (net.out, net.other))
    leading = np.linalg.svd(a)[0][:, :4]
    assert values["distance/out"] == pytest.approx(slow(leading, b)[0])


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="`reference` is 'a' and `data_reference` is 'b'"):
        SubspaceDistance(reference="a", data_reference="b")
    with pytest.raises(ValueError, match="`rank` is 0"):
        SubspaceDistance(rank=0)
    with pytest.raises(ValueError, match="`rank` is 6, but 'out' and the reference share 5"):
        measured(module(), Known(), rank=6)
    with pytest.raises(MisconfigurationException, match="has 8 rows, but the reference has 4"):
        measured(module(), support.Data())
    with pytest.raises(MisconfigurationException, match="'name', which Known has as str"):
        measured(module(), Known(), data_reference="name")
    with pytest.raises(ValueError, match=r"`reference`: 'b' matches nothing.*out"):
        measured(module(), reference="b")


def test_probabilities_of_zero_leave_nothing_defined():
    class Hard(Known):
        def contexts(self):
            x, prior, rows = super().contexts()
            return x, prior, torch.eye(SYMBOLS)[rows.argmax(1)]

    values = measured(module(), Hard())
    assert math.isnan(values["distance/out"])
    assert math.isfinite(values["distance/random"])
