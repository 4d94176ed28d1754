"""Rows of measurements in a file."""

import json
import math

import pytest

from lit_credit.runs.history import History, read_history


def test_rows_come_back_with_nan_and_infinities(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    values = {"a/x": 1.5, "a/nan": math.nan, "a/up": math.inf, "a/down": -math.inf}
    history = History(path)
    history.append(3, 1, "a", values)
    (row,) = read_history(path)
    assert {key: row[key] for key in ("step", "epoch", "name")} == {
        "step": 3,
        "epoch": 1,
        "name": "a",
    }
    assert math.isnan(row["values"].pop("a/nan"))
    assert row["values"] == {"a/x": 1.5, "a/up": math.inf, "a/down": -math.inf}
    strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict["values"]["a/nan"] is None


def test_every_row_is_in_the_file_at_once(tmp_path):
    history = History(tmp_path / "a.jsonl")
    for step in range(3):
        history.append(step, 0, "a", {})
        assert len(read_history(tmp_path / "a.jsonl")) == step + 1


def written(tmp_path, count=3):
    history = History(tmp_path / "a.jsonl")
    for step in range(count):
        history.append(step, 0, "a", {"a/x": float(step)})
    return history.path


def test_a_last_line_cut_off_is_left_out(tmp_path):
    path = written(tmp_path)
    text = path.read_text()
    last = len(text.splitlines()[-1])
    for cut in range(1, last + 1):
        path.write_text(text[:-1][: len(text) - 1 - cut])
        assert len(read_history(path)) == 2


@pytest.mark.parametrize("line", ["{", "3", "[]", '{"values": []}', '{"values": {"a": "b"}}'])
def test_another_broken_line_is_an_error(line, tmp_path):
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[1]]))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: not a row.*Remove the line"):
        read_history(path)


def test_a_resumed_history_holds_just_its_rows(tmp_path):
    path = written(tmp_path)
    rows = read_history(path)[:2]
    resumed = History(path, rows)
    resumed.append(7, 1, "a", {"a/x": math.nan})
    assert [row["step"] for row in read_history(path)] == [0, 1, 7]
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    assert len(rows) == 2


def test_the_file_of_another_run_is_kept(tmp_path):
    path = written(tmp_path)
    first = path.read_text()
    History(path).append(9, 0, "a", {})
    second = path.read_text()
    History(path)
    assert not path.exists()
    assert (tmp_path / "a.1.jsonl").read_text() == first
    assert (tmp_path / "a.2.jsonl").read_text() == second


def test_without_a_path_rows_stay_in_memory():
    history = History()
    history.append(1, 0, "a", {"a/x": 1.0})
    assert history.rows == [{"step": 1, "epoch": 0, "name": "a", "values": {"a/x": 1.0}}]
