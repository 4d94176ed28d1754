"""The measurements of AdderAnatomy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lit_credit.studies.addition.carries import carries_in, longest_run
from lit_credit.studies.addition.digit_readout import digit_readout
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.parts import AdderParts
from lit_credit.studies.addition.place_slots import place_slots
from lit_credit.studies.addition.place_value import force_ratio, place_value_ratio, without_source
from lit_credit.studies.addition.sampler import draw_sums, forced_chains
from lit_credit.studies.addition.sum_errors import column_errors, digit_differences, exact_by_run

__all__ = ["SumProbe", "adder_findings", "draw_probe"]


class SumProbe(NamedTuple):
    """Sums to look at: N uniform ones, then those with forced runs of carries."""

    tokens: Tensor
    """int64 (N + M, T)."""
    uniform: int
    """N."""


def draw_probe(layout: AdditionLayout, n_uniform: int, n_chains: int, seed: int = 0) -> SumProbe:
    """Uniform sums of all digits, and ``n_chains`` of each length of run, always the same."""
    generator = Generator().manual_seed(seed)
    pairs = [draw_sums(n_uniform, layout.digits, layout.digits, 0.0, generator)[0]]
    pairs += [
        forced_chains(n_chains, layout.digits, length, generator)
        for length in range(1, layout.digits + 1)
    ]
    x, y = torch.cat(pairs, 1)
    return SumProbe(layout.fill(x, y), n_uniform)


@torch.no_grad()
def adder_findings(
    net: Any, probe: SumProbe, ratios: Sequence[float], reference: Mapping[str, Tensor]
) -> AdderFindings:
    """One measurement.

    Args:
        net: has ``layout``, ``parts()`` and ``logits_with(tokens, attention)``.
        probe: the sums.
        ratios: those to force.
        reference: gains of another run.
    """
    layout: AdditionLayout = net.layout
    parts: AdderParts = net.parts()
    device = parts.digits.device
    tokens, n = probe.tokens.to(device), probe.uniform
    answers, carries = tokens[:, layout.answers], carries_in(tokens, layout)
    columns = carries.shape[1]
    logits = net.logits_with(tokens[:, :-1], parts.attention)
    predicted = logits.argmax(-1)
    right = predicted == answers
    # What a net of NaN answers is not defined, and no symbol 0: added, it makes all of that NaN.
    undefined = torch.nan if logits.isnan().any() else 0.0
    rows, own, leak = (index.to(device) for index in place_slots(layout))
    attention = parts.attention

    def exact_with(forced: Tensor) -> float:
        logits = net.logits_with(tokens[:n, :-1], forced)
        return float((logits.argmax(-1) == answers[:n]).all(1).float().mean()) + undefined

    return AdderFindings(
        layout=layout,
        parts=_on_cpu(parts),
        sums=n,
        exact=float(right[:n].all(1).float().mean()) + undefined,
        token_accuracy=float(right[:n].float().mean()) + undefined,
        errors=column_errors(~right[:n, :columns], carries[:n]).cpu() + undefined,
        differences=digit_differences(
            predicted[:n, :columns], answers[:n, :columns], carries[:n]
        ).cpu()
        + undefined,
        runs=exact_by_run(right.all(1), longest_run(carries), layout.digits).cpu() + undefined,
        ratio=place_value_ratio(attention, rows, own, leak).cpu(),
        ratios=torch.tensor(ratios),
        forced=torch.tensor(
            [exact_with(force_ratio(attention, rows, own, leak, ratio)) for ratio in ratios]
        ),
        without={
            name: exact_with(without_source(attention, rows, source))
            for name, source in zip("XYZ", leak.T, strict=True)
        },
        readout=digit_readout(parts.digits.cpu(), parts.output.cpu()),
        reference=reference,
    )


def _on_cpu(parts: AdderParts) -> AdderParts:
    gains = {name: gain.detach().cpu() for name, gain in parts.gains.items()}
    fields = parts._replace(gains={})._asdict()
    tensors = {k: v.detach().cpu() for k, v in fields.items() if isinstance(v, Tensor)}
    return parts._replace(**tensors, gains=gains)
