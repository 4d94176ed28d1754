"""Random heads that the tests of circuits share."""

import torch

from lit_credit.functional import FactoredMatrix, ov_circuit, qk_circuit


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_orthonormal(*shape, seed=0):
    return torch.linalg.qr(randn(*shape, seed=seed)).Q


def random_circuits(heads, d, d_head, seed=0):
    """W_QK and W_OV of random heads, (heads, d, d)."""
    query, key, output, value = randn(4, heads, d, d_head, seed=seed)
    return qk_circuit(query, key), ov_circuit(output, value)


def zero(d, d_head=2):
    return FactoredMatrix(*torch.zeros(2, d, d_head, dtype=torch.float64))
