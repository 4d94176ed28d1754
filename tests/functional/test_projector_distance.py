import math

import numpy as np
import pytest
import torch

from lit_credit.functional import (
    principal_angles,
    projector_distance,
    projector_distance_null,
)
from tests.functional.heads import random_orthonormal


@pytest.mark.parametrize(("r", "s"), [(3, 3), (2, 5), (5, 1)])
def test_against_dense_projectors_and_angles(r, s):
    a, b = random_orthonormal(4, 8, r), random_orthonormal(4, 8, s, seed=1)
    found = projector_distance(a, b)
    for i in range(4):
        p, q = a[i].numpy() @ a[i].numpy().T, b[i].numpy() @ b[i].numpy().T
        assert found[i].item() == pytest.approx(np.linalg.norm(p - q))
    if r == s:
        sines = principal_angles(a, b).sin().square().sum(-1)
        torch.testing.assert_close(found, (2 * sines).sqrt())


def test_a_small_distance_keeps_its_digits():
    b = torch.zeros(5, 2, dtype=torch.float64)
    b[0, 0], b[2, 0], b[1, 1] = math.cos(1e-9), math.sin(1e-9), 1
    a = torch.eye(5, 2, dtype=torch.float64)
    assert projector_distance(a, b).item() == pytest.approx(math.sqrt(2) * 1e-9)
    assert projector_distance(a, a).item() == 0


@pytest.mark.parametrize(("n", "r", "s"), [(9, 5, 5), (12, 2, 7)])
def test_random_subspaces_are_where_the_null_says(n, r, s):
    a, b = random_orthonormal(4000, n, r), random_orthonormal(4000, n, s, seed=1)
    rms = projector_distance(a, b).square().mean().sqrt().item()
    assert rms == pytest.approx(projector_distance_null(n, r, s), rel=0.01)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`a` and `b` have shapes \(4, 2\) and \(5, 2\)"):
        projector_distance(torch.eye(4, 2), torch.eye(5, 2))
    with pytest.raises(ValueError, match="`other_rank` is 6"):
        projector_distance_null(5, 2, 6)
