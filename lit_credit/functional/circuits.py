"""What a head reads by, and what it writes: the QK and the OV circuit of its weights."""

from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.factored_matrix import FactoredMatrix

__all__ = ["ov_circuit", "qk_circuit"]


def qk_circuit(query: Tensor, key: Tensor, rotation: Tensor | None = None) -> FactoredMatrix:
    r"""The bilinear form that scores a query against a key.

    .. math:: W_{QK} = W_Q R W_K^\top / \sqrt{d_{\text{head}}}, \quad
        \text{score}(x_m, x_n) = x_m W_{QK} x_n^\top

    without the biases, which add terms of the query, of the key and a constant.

    Args:
        query: W_Q, (..., d_model, d_head): q = x W_Q.
        key: W_K, (..., d_model, d_head).
        rotation: R of :func:`rotary_matrix`, (..., d_head, d_head); None for no rotation.

    Returns:
        Factored, (..., d_model, d_model), queries along the rows.

    Raises:
        ValueError: if the weights do not have one d_head.

    Example:
        >>> import torch
        >>> qk_circuit(torch.eye(4), 3 * torch.eye(4)).trace().item()
        6.0

    Reference:
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021,
        transformer-circuits.pub/2021/framework.
    """
    check_shapes(
        "(..., d_model, d_head), (..., d_model, d_head), (..., d_head, d_head)",
        query=query,
        key=key,
        rotation=rotation,
    )
    q, *turn = in_float32(query, *([] if rotation is None else [rotation]))
    q = q / max(1, query.shape[-1]) ** 0.5
    return FactoredMatrix(q if rotation is None else q @ turn[0], key)


def ov_circuit(output: Tensor, value: Tensor) -> FactoredMatrix:
    r"""The map from what a head attends to, to what it adds to the stream.

    .. math:: W_{OV} = W_O W_V^\top, \quad \Delta x^\top = W_{OV} x^\top

    without the biases.

    Args:
        output: W_O, (..., d_model, d_head): a head adds z W_O^T.
        value: W_V, (..., d_model, d_head): z is the attended mean of x W_V.

    Returns:
        Factored, (..., d_model, d_model), what is written along the rows.

    Raises:
        ValueError: if the weights do not have one d_head.

    Example:
        >>> import torch
        >>> ov_circuit(torch.eye(4), 3 * torch.eye(4)).trace().item()
        12.0

    Reference:
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021,
        transformer-circuits.pub/2021/framework.
    """
    check_shapes("(..., d_model, d_head), (..., d_model, d_head)", output=output, value=value)
    return FactoredMatrix(output, value)
