"""The shapes that the docstrings state, checked by jaxtyping (a test dependency only)."""
# ruff: noqa: F722, F821 (jaxtyping shapes are strings that are not expressions)

import subprocess
import sys

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Float32, Float64, jaxtyped
from torch import Tensor

from lit_credit import functional

typed = jaxtyped(typechecker=beartype)


@typed
def gradient_cosine(
    a: Float[Tensor, "n *features"], b: Float[Tensor, "n *features"]
) -> Float32[Tensor, "n"] | Float64[Tensor, "n"]:
    return functional.gradient_cosine(a, b)


@typed
def sample_norms(
    x: Float[Tensor, "n *features"],
) -> Float32[Tensor, "n"] | Float64[Tensor, "n"]:
    return functional.sample_norms(x)


@typed
def frobenius_norm(x: Float[Tensor, "..."]) -> Float32[Tensor, ""] | Float64[Tensor, ""]:
    return functional.frobenius_norm(x)


@typed
def weight_angle(
    weight: Float[Tensor, "*shape"], feedback: Float[Tensor, "*shape"]
) -> Float64[Tensor, ""]:
    return functional.weight_angle(weight, feedback)


@typed
def norm_ratio(weight: Float[Tensor, "..."], feedback: Float[Tensor, "..."]) -> Float64[Tensor, ""]:
    return functional.norm_ratio(weight, feedback)


@typed
def growth(
    last: Float[Tensor, "*shape"], first: Float[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    return functional.growth(last, first)


@typed
def mean_and_sd(
    values: Float[Tensor, "n *shape"],
) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
    return tuple(functional.mean_and_sd(values))


@typed
def geometric_mean(values: Float[Tensor, "n *shape"]) -> Float64[Tensor, "*shape"]:
    return functional.geometric_mean(values)


ONE = [sample_norms, frobenius_norm, mean_and_sd, geometric_mean]
TWO = [gradient_cosine, weight_angle, norm_ratio, growth]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (1, 2, 2, 2), (0, 3)])
@pytest.mark.parametrize("function", ONE + TWO)
def test_shapes_and_dtypes(function, shape, dtype):
    arguments = [torch.rand(shape).to(dtype) + 1 for _ in range(1 if function in ONE else 2)]
    function(*arguments)


def test_jaxtyping_is_not_needed_at_run_time():
    code = (
        "import sys, lit_credit.functional, lit_credit.plotting; "
        "assert not {'jaxtyping', 'beartype', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
