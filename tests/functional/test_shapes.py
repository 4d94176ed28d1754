"""The shapes that the docstrings state, checked by jaxtyping (a test dependency only)."""
# ruff: noqa: F722, F821 (jaxtyping shapes are strings that are not expressions)

import subprocess
import sys

import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, Float32, Float64, Int64, jaxtyped
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


@typed
def softmax_parts(
    attention: Float[Tensor, "*b t s"],
    credit: Float[Tensor, "*b t s"],
    allowed: Bool[Tensor, "..."],
) -> tuple[Float64[Tensor, "*b t s"], ...]:
    return tuple(functional.softmax_gradients(attention, credit, allowed))


@typed
def softmax_numbers(
    attention: Float[Tensor, "*b t s"],
    credit: Float[Tensor, "*b t s"],
    allowed: Bool[Tensor, "..."],
) -> tuple[Float64[Tensor, "*b"], ...]:
    gradients = functional.softmax_gradients(attention, credit, allowed)
    cosines = functional.softmax_cosines(gradients)
    mean = functional.mean_attention(attention, allowed)
    return (*functional.softmax_energies(gradients), *cosines, mean)


@typed
def attention_entropy(
    attention: Float[Tensor, "*b t s"], allowed: Bool[Tensor, "..."]
) -> Float64[Tensor, "*b t"]:
    return functional.attention_entropy(attention, allowed)


@typed
def effective_keys(
    attention: Float[Tensor, "*b t s"], allowed: Bool[Tensor, "..."]
) -> Float64[Tensor, "*b t"]:
    return functional.effective_keys(attention, allowed)


@typed
def head_scores(attention: Float[Tensor, "n h t t"]) -> tuple[Float64[Tensor, "h"], ...]:
    return (
        functional.previous_token_score(attention),
        functional.induction_score(attention, 2),
        functional.duplicate_token_score(attention, 2),
    )


@typed
def repeated_tokens(n: int, period: int, repeats: int) -> Int64[Tensor, "{n} {period*repeats}"]:
    return functional.repeated_tokens(n, period, repeats, 9, torch.Generator())


@typed
def circuits(
    w: Float[Tensor, "*h d k"],
) -> tuple[Float[Tensor, "*h d k"], ...]:
    qk, ov = functional.qk_circuit(w, w), functional.ov_circuit(w, w)
    return qk.left, qk.right, ov.left, ov.right


@typed
def factored_numbers(
    left: Float[Tensor, "*h d k"], right: Float[Tensor, "*h d k"]
) -> tuple[Float[Tensor, "*h"], ...]:
    a = functional.FactoredMatrix(left, right)
    scores = functional.diagonal_score(a, a), *functional.composition_scores(a, a, a)
    mismatch = functional.token_mismatch(left.new_ones(3, left.shape[-2]), a, a)
    return a.trace(), a.sum(), a.norm(), functional.product_norm(a, a), *scores, mismatch


@typed
def directions(
    left: Float[Tensor, "*h d k"], right: Float[Tensor, "*h d k"]
) -> tuple[Float[Tensor, "*h d r"], Float[Tensor, "*h d r"]]:
    u, s, v = functional.FactoredMatrix(left, right).svd()
    assert s.shape == (*u.shape[:-2], u.shape[-1])
    assert functional.leading_directions(left, u.shape[-1]).shape == u.shape
    return u, v


@typed
def matches(
    u: Float[Tensor, "*h d r"], v: Float[Tensor, "*h d r"]
) -> tuple[Float[Tensor, "*h 2"], ...]:
    read = functional.position_matching(u.mT.reshape(-1, u.shape[-2]), v, [1, 2])
    return *functional.subspace_match(u, v, [1, 2]), *read


@typed
def principal_angles(
    u: Float[Tensor, "*h d r"], v: Float[Tensor, "*h d r"]
) -> Float[Tensor, "*h r"]:
    return functional.principal_angles(u, v)


@typed
def rotary_matrix(
    frequencies: Float[Tensor, "p"], distance: Float[Tensor, "*n"]
) -> Float[Tensor, "*n {2*len(frequencies)} {2*len(frequencies)}"]:
    return functional.rotary_matrix(frequencies, distance)


@typed
def embedding_numbers(
    w: Float[Tensor, "n d"],
) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, "n"], Float64[Tensor, ""]]:
    return (
        functional.cosine_matrix(w),
        functional.feature_dimensionality(w),
        functional.mean_squared_cosine(w),
    )


@typed
def theory_numbers(
    logits: Float[Tensor, "*b n"], p: Float[Tensor, "*b n"]
) -> tuple[Float64[Tensor, "*b"], ...]:
    return (
        functional.softmax_divergence(logits, p),
        functional.top_probability(logits, p),
        functional.logit_margins(logits, p.argmax(-1)),
    )


@typed
def attributed(parts: Float[Tensor, "*h m d"], u: Float[Tensor, "n d"]) -> Float[Tensor, "*h m n"]:
    stream = parts.flatten(0, -3).sum(0) if parts.ndim > 2 else parts
    through: Float[Tensor, "*h m d"] = functional.through_frozen_norm(
        parts, stream, None, 1e-5, centred=True
    )
    return functional.logit_attribution(through, u)


@typed
def projector_distance(
    a: Float[Tensor, "*h d r"], b: Float[Tensor, "*h d s"]
) -> Float[Tensor, "*h"]:
    return functional.projector_distance(a, b)


ONE = [sample_norms, frobenius_norm, mean_and_sd, geometric_mean]
TWO = [gradient_cosine, weight_angle, norm_ratio, growth]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (1, 2, 2, 2), (0, 3)])
@pytest.mark.parametrize("function", ONE + TWO)
def test_shapes_and_dtypes(function, shape, dtype):
    arguments = [torch.rand(shape).to(dtype) + 1 for _ in range(1 if function in ONE else 2)]
    function(*arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 4), (3, 4), (2, 3, 5), (2, 2, 3, 4), (0, 2, 3, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_shapes_and_dtypes_of_attention(shape, dtype, masked):
    attention = torch.rand(shape).softmax(-1).to(dtype)
    allowed = torch.ones(shape[-2:] if masked else (1,), dtype=torch.bool)
    for function in (softmax_parts, softmax_numbers):
        function(attention, attention, allowed)
    for function in (attention_entropy, effective_keys):
        function(attention, allowed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (1, 1, 3, 3), (0, 2, 3, 3)])
def test_shapes_and_dtypes_of_head_scores(shape, dtype):
    head_scores(torch.rand(shape).softmax(-1).to(dtype))
    repeated_tokens(shape[0], 3, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 3), (2, 6, 3), (2, 3, 5, 5), (4, 3, 7)])
def test_shapes_and_dtypes_of_circuits(shape, dtype):
    left, right = torch.randn(2, *shape, dtype=dtype)
    found = [*circuits(left), *factored_numbers(left, right), *directions(left, right)]
    u, v = found[-2:]
    found += [*matches(u, v), principal_angles(u, v), rotary_matrix(left[..., 0].flatten(), u)]
    assert {x.dtype for x in found} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes_of_what_is_known_of_distributions(dtype):
    u, parts = torch.randn(7, 3, dtype=dtype), torch.randn(4, 5, 3, dtype=dtype)
    p = torch.randn(5, 7, dtype=dtype).softmax(-1)
    embedding_numbers(u)
    for shape in ((7,), (5, 7), (2, 5, 7)):
        theory_numbers(torch.randn(shape, dtype=dtype), p.expand(2, 5, 7)[(0,) * (3 - len(shape))])
    for some in (parts, parts[0]):
        assert attributed(some, u).dtype == dtype
    directions: Float[Tensor, "7 2"] = functional.log_prob_directions(p, 2)
    projector_distance(directions, directions[:, :1])
    functional.shared_work(parts[0])


def test_jaxtyping_is_not_needed_at_run_time():
    code = (
        "import sys, lit_credit.functional, lit_credit.plotting; "
        "assert not {'jaxtyping', 'beartype', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
