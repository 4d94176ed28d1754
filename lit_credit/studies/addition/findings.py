"""One measurement of a net that adds: which sums it gets wrong, and how it attends."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lit_credit.runs.table import TableRow
from lit_credit.studies.addition.data import uniform_and_chains
from lit_credit.studies.addition.functions import (
    DigitReadout,
    column_errors,
    digit_differences,
    digit_readout,
    exact_by_run,
    force_ratio,
    place_value_ratio,
    without_source,
)
from lit_credit.studies.addition.layout import AdditionLayout, carries_in, longest_run, place_slots
from lit_credit.studies.addition.model import AdderParts

__all__ = [
    "AdderFindings",
    "SumProbe",
    "adder_findings",
    "adder_tables",
    "draw_probe",
    "top_sources",
]


class AdderFindings(NamedTuple):
    """What one measurement has found, of a net with C columns Z0 .. and R = C + 1 answers.

    The last answer is "EOS".
    """

    layout: AdditionLayout
    parts: AdderParts
    sums: int
    """Uniform sums that were measured."""
    exact: float
    """Share of the uniform sums with all answers right."""
    token_accuracy: float
    """Share of right answers."""
    errors: Tensor
    """Share of wrong digits by column: of all, without, and with a carry into it, (C, 3)."""
    differences: Tensor
    """Counts of predicted - target mod 10, without and with a carry, (2, 10)."""
    runs: Tensor
    """Share of right sums by their longest run of carries, from 0, (C,)."""
    ratio: Tensor
    """Place-value ratio of the columns Z1 .. Z(digits - 1), (digits - 1,)."""
    ratios: Tensor
    """Ratios that were forced, (K,)."""
    forced: Tensor
    """Share of right sums at each, (K,)."""
    without: Mapping[str, float]
    """Name of a source of the column below to the share of right sums without it."""
    readout: DigitReadout
    """What attention reads of a digit."""
    reference: Mapping[str, Tensor]
    """Gains of the norms of another run, by name; empty if there is none."""


class SumProbe(NamedTuple):
    """Sums to look at: N uniform ones, then those with forced runs of carries."""

    tokens: Tensor
    """int64 (N + M, T)."""
    uniform: int
    """N."""


def draw_probe(layout: AdditionLayout, n_uniform: int, n_chains: int, seed: int = 0) -> SumProbe:
    """Uniform sums of all digits, and ``n_chains`` of each length of run, always the same."""
    generator = Generator().manual_seed(seed)
    return SumProbe(uniform_and_chains(layout, n_uniform, n_chains, generator), n_uniform)


@torch.no_grad()
def adder_findings(
    net: Any, probe: SumProbe, ratios: Sequence[float], reference: Mapping[str, Tensor]
) -> AdderFindings:
    """Measure a net on sums.

    Args:
        net: has ``layout``, ``parts()`` and ``logits_with(tokens, attention)``.
        probe: the sums.
        ratios: place-value ratios to force on the attention.
        reference: gains of another run, by name.
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
    # argmax of NaN logits is 0, which is not an answer: adding NaN makes these numbers undefined.
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


def top_sources(found: AdderFindings) -> list[list[tuple[int, float]]]:
    """For each answer the inputs that it attends to most, five at most: (position, attention)."""
    top = found.parts.attention.topk(min(5, found.layout.inputs))
    return [
        list(zip(places, weights, strict=True))
        for places, weights in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def adder_tables(found: AdderFindings) -> dict[str, list[TableRow]]:
    """All numbers of a measurement as tables, by name: see :class:`AdderAnatomy`."""
    layout = found.layout
    answers = layout.names[layout.answers]
    ratio = [nan, *found.ratio.tolist(), nan]
    columns: list[TableRow] = [
        {"answer": name, "error": e, "error_no_carry": e0, "error_carry": e1, "ratio": r}
        for name, (e, e0, e1), r in zip(answers, found.errors.tolist(), ratio, strict=False)
    ]
    runs: list[TableRow] = [
        {"longest_run": run, "exact": exact} for run, exact in enumerate(found.runs.tolist())
    ]
    sources: list[TableRow] = [
        {"answer": answer, "rank": rank, "source": layout.names[place], "attention": weight}
        for answer, top in zip(answers, top_sources(found), strict=True)
        for rank, (place, weight) in enumerate(top, 1)
    ]
    forced: list[TableRow] = [
        {"ratio": ratio, "exact": exact}
        for ratio, exact in zip(found.ratios.tolist(), found.forced.tolist(), strict=True)
    ]
    tables = {"columns": columns, "runs": runs, "sources": sources, "forced": forced}
    return tables | _wrong_digits(found) | _vectors(found)


def _wrong_digits(found: AdderFindings) -> dict[str, list[TableRow]]:
    """``differences``: how many digits are off by how much modulo 10, without and with a carry."""
    rows: list[TableRow] = [
        {"off": off, "no_carry": none, "carry": carry}
        for off, (none, carry) in enumerate(found.differences.T.tolist())
    ]
    return {"differences": rows}


def _vectors(found: AdderFindings) -> dict[str, list[TableRow]]:
    """``digits`` and ``positions``: what the net stores of each; ``features``: of the stream."""
    layout, parts, readout = found.layout, found.parts, found.readout
    digits: list[TableRow] = [
        {"digit": digit, **_numbered("feature", point), "read": read}
        for digit, (point, read) in enumerate(
            zip(parts.digits.tolist(), readout.values.tolist(), strict=True)
        )
    ]
    places = range(len(parts.keys))
    positions: list[TableRow] = [
        {"position": layout.names[place], **_numbered("query", q), **_numbered("key", k)}
        for place, q, k in zip(places, parts.queries.tolist(), parts.keys.tolist(), strict=True)
    ]
    read = parts.read if parts.read is not None else readout.read
    write = parts.write if parts.write is not None else readout.write
    features: list[TableRow] = [
        {"what": what, **_numbered("feature", numbers.tolist())}
        for what, numbers in (
            ("attention reads", read),
            ("attention writes", write),
            *((f"gain of {name}", gain) for name, gain in parts.gains.items()),
            *((f"gain of {name}, reference", gain) for name, gain in found.reference.items()),
        )
    ]
    return {"digits": digits, "positions": positions, "features": _filled(features)}


def _numbered(name: str, values: Sequence[float]) -> TableRow:
    return {f"{name}_{index}": value for index, value in enumerate(values, 1)}


def _filled(rows: list[TableRow]) -> list[TableRow]:
    """Rows with the columns of all of them; a missing number is NaN."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, nan) for key in columns} for row in rows]
