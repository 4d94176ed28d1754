"""Curves over epochs, read from the rows of a history."""

import re
from collections.abc import Mapping, Sequence

from lit_credit.runs.history import Row

__all__ = ["Curve", "Histories", "layer_mean", "layer_tags", "match_ranks", "run_curve", "series"]

Curve = dict[int, float]
"""Epoch to value."""

Histories = Mapping[str, Sequence[Row]]
"""The histories of one run: name of the file without its ending, and its rows."""

_LAYER = re.compile(r"L(\d+)")


def layer_tags(rows: Sequence[Row], prefix: str) -> list[str]:
    """The tags that begin with ``prefix``, layers by their number, others as they first appear.

    Args:
        rows: rows of a history.
        prefix: for example ``residual/norm/``.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"a/L10": 1.0, "a/L02": 1.0}}
        >>> layer_tags([row], "a/")
        ['a/L02', 'a/L10']
    """
    tags = {tag: None for row in rows for tag in row["values"] if tag.startswith(prefix)}

    def depth(tag: str) -> int:
        layer = _LAYER.fullmatch(tag.removeprefix(prefix))
        return int(layer[1]) if layer else -1

    return sorted(tags, key=depth)


def series(rows: Sequence[Row], tag: str, by: str = "epoch") -> Curve:
    """The values of one tag, by epoch; of several rows in one epoch the first, at its border.

    Args:
        rows: rows of a history.
        tag: the quantity.
        by: the key of the row to index by, ``epoch`` or ``step``.

    Example:
        >>> series([{"step": 9, "epoch": 1, "name": "", "values": {"a": 2.0}}], "a")
        {1: 2.0}
    """
    values: Curve = {}
    for row in rows:
        if tag in row["values"]:
            values.setdefault(row[by], row["values"][tag])
    return values


def layer_mean(rows: Sequence[Row], prefix: str) -> Curve:
    """The mean over layers, by epoch; NaN as soon as one layer's value is.

    Args:
        rows: rows of a history.
        prefix: what the layers' tags begin with.

    Example:
        >>> values = {"a/L00": 1.0, "a/L01": 0.5}
        >>> layer_mean([{"step": 9, "epoch": 1, "name": "", "values": values}], "a/")
        {1: 0.75}
    """
    layers = [series(rows, tag) for tag in layer_tags(rows, prefix)]
    epochs = sorted({epoch for layer in layers for epoch in layer})
    values = {epoch: [layer[epoch] for layer in layers if epoch in layer] for epoch in epochs}
    return {epoch: sum(row) / len(row) for epoch, row in values.items()}


def match_ranks(rows: Sequence[Row], section: str = "circuits") -> list[int]:
    """The ranks at which subspaces were matched, those nearest to 10 first.

    Args:
        rows: rows of the history ``circuit_matching``.
        section: what the tags begin with.

    Example:
        >>> values = {"circuits/match_rms/R05/best": 0.3, "circuits/match_rms/R10/best": 0.4}
        >>> match_ranks([{"step": 0, "epoch": 0, "name": "", "values": values}])
        [10, 5]
    """
    tagged = re.compile(rf"{section}/match_rms/R(\d+)/best")
    tags = {tag: None for row in rows for tag in row["values"]}
    found = [int(match[1]) for tag in tags if (match := tagged.fullmatch(tag))]
    return sorted(found, key=lambda rank: abs(rank - 10))


def run_curve(histories: Histories, quantity: str) -> Curve:
    """One of the quantities by which runs are compared; empty where it was not measured.

    Args:
        histories: of one run.
        quantity: ``h`` (residual norm at the last point of the stream), ``g`` (exact gradient
            there), ``cosine`` (credit against exact gradient, mean over units), ``accuracy``,
            ``loss``, ``ood_error`` or ``id_error`` (of the validation; of a further loader
            ``accuracy/ood``), ``z``, ``mismatch`` or ``match`` (of the best pair of heads, the
            match at the rank nearest to 10).

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"val/accuracy": 0.1}}
        >>> run_curve({"metrics": [row]}, "accuracy"), run_curve({"metrics": [row]}, "h")
        ({0: 0.1}, {})
    """
    if quantity.partition("/")[0] in ("accuracy", "loss", "ood_error", "id_error"):
        return series(histories.get("metrics", []), f"val/{quantity}")
    if quantity == "cosine":
        return layer_mean(histories.get("credit_alignment", []), "credit/cosine/")
    if quantity in ("z", "mismatch", "match"):
        rows = histories.get("circuit_matching", [])
        if quantity == "match" and (ranks := match_ranks(rows)):
            quantity = f"match_rms/R{ranks[0]:02d}"
        return series(rows, f"circuits/{quantity}/best")
    file, prefix = {
        "h": ("residual_norms", "residual/norm/"),
        "g": ("gradient_norms", "gradient/norm/"),
    }[quantity]
    rows = histories.get(file, [])
    tags = layer_tags(rows, prefix)
    return series(rows, tags[-1]) if tags else {}
