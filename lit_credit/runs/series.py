"""Reading curves over epochs from the rows of a history."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lit_credit.runs.columns import Columns, Line
from lit_credit.runs.history import Row

__all__ = [
    "Curve",
    "Histories",
    "gather",
    "last_layer",
    "last_layer_line",
    "layer_mean",
    "layer_mean_line",
    "layer_tags",
    "line_of",
    "line_of_curve",
    "series",
    "tags_of",
]

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
    tags = [tag for tag in tags_of(rows) if tag.startswith(prefix)]

    def depth(tag: str) -> int:
        layer = _LAYER.fullmatch(tag.removeprefix(prefix))
        return int(layer[1]) if layer else -1

    return sorted(tags, key=depth)


def tags_of(rows: Sequence[Row]) -> list[str]:
    """All tags, in the order in which they appear first."""
    if isinstance(rows, Columns):
        return rows.tags
    return list({tag: None for row in rows for tag in row["values"]})


def line_of(rows: Sequence[Row], tag: str, by: str = "epoch") -> Line:
    """The values of one tag as arrays; of several rows in an epoch, the first one counts."""
    if isinstance(rows, Columns):
        return rows.line(tag, by)
    first: Curve = {}
    for row in rows:
        if tag in row["values"]:
            first.setdefault(row[by], row["values"][tag])
    return line_of_curve(first)


def line_of_curve(curve: Curve) -> Line:
    """A curve as arrays, in the order of its places."""
    curve = dict(sorted(curve.items()))
    return Line(np.array(list(curve), dtype=np.int64), np.array(list(curve.values()), dtype=float))


def gather(
    lines: Sequence[Line],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The union of the places of curves, (P,), their values there, and whether they have one.

    Args:
        lines: N curves.

    Returns:
        Places (P,), values (N, P), which are NaN where a curve has none, and which these are.
    """
    if lines and all(np.array_equal(line.places, lines[0].places) for line in lines[1:]):
        values = np.stack([line.values for line in lines])
        return lines[0].places, values, np.ones(values.shape, dtype=bool)
    joined = [line.places for line in lines]
    places = np.unique(np.concatenate(joined)) if joined else np.empty(0, dtype=np.int64)
    values = np.full((len(lines), len(places)), np.nan)
    present = np.zeros(values.shape, dtype=bool)
    for row, line in enumerate(lines):
        at = np.searchsorted(places, line.places)
        values[row, at], present[row, at] = line.values, True
    return places, values, present


def layer_mean_line(rows: Sequence[Row], prefix: str, by: str = "epoch") -> Line:
    """:func:`layer_mean` as arrays."""
    tags = layer_tags(rows, prefix)
    places, values, present = gather([line_of(rows, tag, by) for tag in tags])
    with np.errstate(all="ignore"):
        mean = np.where(present, values, 0.0).sum(0) / present.sum(0)
    return Line(places, mean)


def last_layer_line(rows: Sequence[Row], prefix: str, by: str = "epoch") -> Line:
    """:func:`last_layer` as arrays."""
    tags = layer_tags(rows, prefix)
    return line_of(rows, tags[-1], by) if tags else line_of_curve({})


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
    return _curve(line_of(rows, tag, by))


def _curve(line: Line) -> Curve:
    return dict(zip(line.places.tolist(), line.values.tolist(), strict=True))


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
    return _curve(layer_mean_line(rows, prefix))


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
    return _curve(last_layer_line(rows, prefix))
