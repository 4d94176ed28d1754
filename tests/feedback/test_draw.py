import math
from typing import get_args

import pytest
import torch

from lit_credit.feedback import Distribution, derive_seed, draw_feedback

FANS = {"fan_in": 50, "fan_out": 400}


def draw(distribution="normal", shape=(400, 50), **arguments):
    return draw_feedback(shape, **{**FANS, "distribution": distribution, **arguments})


@pytest.mark.parametrize(
    ("distribution", "variance"),
    [("normal", 1 / 50), ("uniform", 1 / 50), ("kaiming", 2 / 50), ("xavier", 2 / 450)],
)
def test_moments(distribution, variance):
    matrix = draw(distribution).double()
    deviation = math.sqrt(variance)
    assert matrix.mean().abs() < 4 * deviation / math.sqrt(matrix.numel())
    assert matrix.std().item() == pytest.approx(deviation, rel=0.03)


def test_uniform_is_bounded_and_normal_is_not():
    bound = math.sqrt(3 / 50)
    assert draw("uniform").abs().max() <= bound
    assert draw("normal").abs().max() > bound


def test_normal_is_the_study_s_randn_over_root_of_classes():
    generator = torch.Generator().manual_seed(3)
    expected = torch.randn(256, 10, generator=generator) / math.sqrt(10)
    assert torch.equal(draw_feedback((256, 10), fan_in=10, fan_out=256, seed=3), expected)


@pytest.mark.parametrize("shape", [(400, 50), (50, 400), (8, 4, 3, 3)])
def test_orthogonal(shape):
    matrix = draw("orthogonal", shape, scale=2.0).flatten(1).double()
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, 4 * torch.eye(len(gram)).double(), atol=1e-5, rtol=0)


def test_constant_and_weight():
    assert torch.equal(draw("constant", scale=3.0).unique(), torch.tensor([3 / math.sqrt(50)]))
    weight = torch.randn(400, 50, requires_grad=True)
    copy = draw("weight", weight=weight, scale=2.0)
    assert torch.equal(copy, 2 * weight)
    assert not copy.requires_grad
    assert draw("weight", weight=weight).data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(
    "distribution", [d for d in get_args(Distribution) if not d.startswith("weight")]
)
def test_scale_seed_dtype_and_global_state(distribution):
    before = torch.get_rng_state()
    matrix = draw(distribution, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(draw(distribution, seed=1, scale=2.0), 2 * matrix)
    double = draw(distribution, seed=1, dtype=torch.float64)
    assert double.dtype == torch.float64
    assert torch.equal(double.float(), matrix)
    torch.manual_seed(99)
    assert torch.equal(draw(distribution, seed=1), matrix)
    assert torch.equal(draw(distribution, seed=2), matrix) == (distribution == "constant")


def test_default_device_and_dtype_play_no_part():
    expected = draw()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert torch.equal(draw(device="cpu"), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distribution": "gaussian"}, "`distribution` is 'gaussian'. Choose from: normal"),
        ({"scale": math.nan}, "`scale` is nan"),
        ({"scale": math.inf}, "`scale` is inf"),
        ({"fan_in": 0}, "`fan_in` is 0"),
        ({"distribution": "orthogonal", "shape": (5,)}, "needs two dimensions"),
        ({"distribution": "weight"}, "`weight` is None"),
        ({"distribution": "weight", "weight": torch.ones(2, 2)}, r"of shape \(2, 2\)"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(**arguments)


def test_streams_are_stable_and_distinct():
    assert derive_seed(0, "a.weight") == 4658477414014671903
    seeds = {derive_seed(seed, name) for seed in range(20) for name in ("a", "b", 0, 1, 10)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
