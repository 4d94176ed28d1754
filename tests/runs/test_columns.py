"""Histories as arrays against the same histories as rows."""

import json
import math

import numpy as np
import pytest

from lit_credit.runs.columns import Columns, as_columns, read_columns
from lit_credit.runs.history import History, read_history
from lit_credit.runs.run_folder import read_ordered_columns, read_ordered_rows
from lit_credit.runs.series import gather, layer_mean, layer_tags, line_of, series, tags_of

ROWS = [
    (0, 0, {"a/L00": 1.0, "a/L01": 2.0}),
    (4, 1, {"b": 5.0}),
    (5, 1, {"a/L00": math.nan, "a/L01": 3.0}),
    (7, 1, {"a/L00": 4.0, "a/L01": 5.0}),
    (9, 2, {"a/L01": math.inf, "b": -math.inf}),
]


@pytest.fixture
def path(tmp_path):
    history = History(tmp_path / "x.jsonl")
    for step, epoch, values in ROWS:
        history.append(step, epoch, "x", values)
    return tmp_path / "x.jsonl"


def same(a, b):
    return json.dumps(list(a)) == json.dumps(list(b))  # NaN is NaN


def test_columns_are_the_rows(path):
    columns, rows = read_columns(path), read_history(path)
    assert same(columns, rows)
    assert len(columns) == 5
    assert same([columns[-1]], [rows[-1]])
    assert same(columns[1:3], rows[1:3])
    with pytest.raises(IndexError):
        columns[5]


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_curves_are_those_of_the_rows(path, by):
    columns, rows = read_columns(path), read_history(path)
    assert tags_of(columns) == tags_of(rows) == ["a/L00", "a/L01", "b"]
    assert layer_tags(columns, "a/") == layer_tags(rows, "a/")
    for tag in (*tags_of(rows), "absent"):
        assert str(series(columns, tag, by)) == str(series(rows, tag, by))
    assert str(layer_mean(columns, "a/")) == str(layer_mean(rows, "a/"))
    assert series(columns.by_steps(), "b") == series(rows, "b", "step")


def test_only_wanted_tags_are_kept(path):
    columns = read_columns(path, lambda tag: tag == "b")
    assert columns.tags == ["b"]
    assert series(columns, "b") == {1: 5.0, 2: -math.inf}
    assert len(columns) == 5


def test_the_union_of_places():
    lines = [line_of(rows, "a") for rows in ([row(0, 1.0), row(2, 3.0)], [row(1, math.nan)])]
    places, values, present = gather(lines)
    assert places.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(values, [[1.0, math.nan, 3.0], [math.nan] * 3])
    assert present.tolist() == [[True, False, True], [False, True, False]]
    assert [len(x) for x in gather([])] == [0, 0, 0]


def row(epoch, value):
    return {"step": epoch, "epoch": epoch, "name": "x", "values": {"a": value}}


GOOD = b'{"step": 0, "epoch": 0, "name": "x", "values": {"a": 1.0}}\n'
UNUSUAL = [
    # What one JSON text of all lines would read otherwise than line by line.
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": 1.0, "a": 2.0}}\n',
    b'{"step": 1, "epoch": 1, "step": 2, "name": "x", "values": {"a": 1.0}}\n',
    b'{"step": 1, "epoch": 1,\n"name": "x", "values": {"a": 1.0}}\n',
    b'{"step": 1, "epoch": 1, "name": [{}\n{}], "values": {"a": 1.0}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": true}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": "1.5"}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": [1]}}\n',
    b'{"step": true, "epoch": 1, "name": "x", "values": {"a": 1}}\n',
    b'{"step": 1, "epoch": -1, "name": "x", "values": {"a": 1}}\n',
    b'{"step": 1, "epoch": 9007199254740992, "name": "x", "values": {"a": 1}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": 1%s}}\n' % (b"0" * 400),
    b'{"step": 0, "epoch": 0, "name": "x", "values": {"a": 1.0}}\n',
    b"\n",
    b"null\n",
]
FINE = [
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": null, "b": "-Infinity"}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": 7}}\n',
    b'{"step":1,"epoch":1,"name":"x","values":{"a":7,"c\\":":2}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {"a": 1.0}, "proved": {"p": 0.5}}\n',
    b'{"step": 1, "epoch": 1, "name": "x", "values": {}}\n',
    b'{"step": 1, "epoch": 1, "na',
]


@pytest.mark.parametrize("line", UNUSUAL)
@pytest.mark.parametrize(
    "after", [b"", GOOD.replace(b'h": 0', b'h": 9').replace(b'p": 0', b'p": 9')]
)
def test_a_broken_line_is_refused_as_it_is_line_by_line(tmp_path, line, after):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD + line + after)
    if line == b"\n" and not after:
        assert same(read_ordered_columns(path), read_ordered_rows(path))
        return
    with pytest.raises(ValueError, match=r"x\.jsonl, line") as by_line:
        read_ordered_rows(path)
    with pytest.raises(ValueError, match=r"x\.jsonl, line") as at_once:
        read_ordered_columns(path)
    assert str(at_once.value) == str(by_line.value)


@pytest.mark.parametrize("line", FINE)
def test_a_rare_form_is_read_as_it_is_line_by_line(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD + line)
    rows = [{k: v for k, v in row.items() if k != "proved"} for row in read_ordered_rows(path)]
    assert same(read_ordered_columns(path), rows)


def test_no_rows(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="no rows"):
        read_ordered_columns(tmp_path / "x.jsonl")
    assert as_columns([]) is None


def test_bytes_hold_all_columns(tmp_path):
    history = History(tmp_path / "h.jsonl", [])
    for epoch in range(4):
        history.append(3 * epoch, epoch, "h", {"a": epoch / 3, **({"b/ä": 1} if epoch > 1 else {})})
    columns = read_columns(tmp_path / "h.jsonl")
    again = Columns.of_bytes(columns.to_bytes())
    assert list(again) == list(columns)
    assert again.tags == ["a", "b/ä"]
    assert again.name == "h"
