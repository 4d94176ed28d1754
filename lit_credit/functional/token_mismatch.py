"""Does a head that looks for a token find that token, and no other?"""

import torch
from torch import Tensor

from lit_credit.functional._linalg import inner, outer
from lit_credit.functional._rows import in_float32, magnitude
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.factored_matrix import FactoredMatrix

__all__ = ["token_mismatch"]

# Scores that are held at once, over all pairs of heads: 128 MB in float64.
_SCORES = 2**24


def token_mismatch(embedding: Tensor, qk: FactoredMatrix, ov: FactoredMatrix) -> Tensor:
    r"""Share of tokens whose copy is not the best match for the token itself.

    .. math:: 1 - \operatorname{mean}_i \big[\operatorname{argmax}_j (E Z E^\top)_{ij} = i\big],
        \quad Z = W_{QK} W_{OV}

    Token i at the query, token j moved by the writing head to the key. Between unrelated heads it
    is 1 - 1/V.

    Args:
        embedding: E, (V, d). Cost and memory grow with V^2 a pair: of a large vocabulary give
            some hundreds of rows.
        qk: of the reading heads, (..., d, d).
        ov: of the writing heads, (..., d, d), broadcast to those of ``qk``.

    Returns:
        (...) of the broadcast leading dimensions, from 0 (every token finds itself) to 1. Tokens
        without any score, such as a padding token's row of zeros, do not count; NaN where that is
        all of them.

    Raises:
        ValueError: if the widths differ, or there is no token.

    Example:
        >>> eye = FactoredMatrix(torch.eye(4), torch.eye(4))
        >>> token_mismatch(torch.eye(4), eye, eye).item()
        0.0

    Reference:
        Song, Xu, Zhong, "Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers", 2024, arXiv:2408.09503.
    """
    check_shapes("(V, d), (..., d, d), (..., d, d)", embedding=embedding, qk=qk, ov=ov)
    if not len(embedding):
        raise ValueError("`embedding` has no rows, expected at least one token.")
    # The best match is the same at any scale.
    e, *factors = (
        x / magnitude(x, (-2, -1))
        for x in in_float32(embedding, qk.left, qk.right, ov.left, ov.right)
    )
    queries, keys = e @ factors[0], e @ factors[3]
    core = inner(factors[2], factors[1])  # transposed, as `outer` has its second factor
    chunk = max(1, _SCORES // max(1, core.shape[:-2].numel() * len(e)))
    found, scored = [], []
    for start in range(0, len(e), chunk):
        rows = queries[..., start : start + chunk, :]
        tokens = torch.arange(start, start + rows.shape[-2], device=e.device)
        best, choice = outer(outer(rows, core), keys).max(-1)  # (..., tokens)
        defined = best.isfinite() & (best != 0)
        found.append((defined & (choice == tokens)).sum(-1))
        scored.append(defined.sum(-1))
    return 1 - torch.stack(found).sum(0).to(e) / torch.stack(scored).sum(0)
