"""Reading curves over epochs from the rows of a history."""

import re
from collections.abc import Mapping, Sequence

from lit_credit.runs.history import Row

__all__ = ["Curve", "Histories", "last_layer", "layer_mean", "layer_tags", "series"]

Curve = dict[int, float]
"""Epoch to value."""

Histories = Mapping[str, Sequence[Row]]
"""The histories of one run: name of the file without its ending, to its rows."""

_LAYER = re.compile(r"L(\d+)")


def layer_tags(rows: Sequence[Row], prefix: str) -> list[str]:
    """The tags that begin with ``prefix``: first others as they appear, then layers by number.

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
    """The values of one tag by epoch; of several rows in an epoch, the first one counts.

    Args:
        rows: rows of a history.
        tag: the quantity.
        by: the key of a row to index by, ``epoch`` or ``step``.

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
    """The mean over layers by epoch; NaN if the value of one layer is NaN.

    Args:
        rows: rows of a history.
        prefix: the prefix of the layers' tags.

    Example:
        >>> values = {"a/L00": 1.0, "a/L01": 0.5}
        >>> layer_mean([{"step": 9, "epoch": 1, "name": "", "values": values}], "a/")
        {1: 0.75}
    """
    layers = [series(rows, tag) for tag in layer_tags(rows, prefix)]
    epochs = sorted({epoch for layer in layers for epoch in layer})
    values = {epoch: [layer[epoch] for layer in layers if epoch in layer] for epoch in epochs}
    return {epoch: sum(row) / len(row) for epoch, row in values.items()}


def last_layer(rows: Sequence[Row], prefix: str) -> Curve:
    """The values of the last layer by epoch; empty if there are no layers.

    Args:
        rows: rows of a history.
        prefix: the prefix of the layers' tags.

    Example:
        >>> values = {"a/L00": 1.0, "a/L01": 0.5}
        >>> last_layer([{"step": 9, "epoch": 1, "name": "", "values": values}], "a/")
        {1: 0.5}
    """
    tags = layer_tags(rows, prefix)
    return series(rows, tags[-1]) if tags else {}
