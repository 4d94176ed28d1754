"""Histories that processes of their own read."""

import math
import os

import numpy as np
import pytest

from lit_credit.comparison import compare
from lit_credit.runs import read_ahead
from lit_credit.runs.history import History
from lit_credit.runs.read_ahead import reading_ahead
from lit_credit.runs.run_folder import read_ordered_columns
from tests.cli.synthetic_runs import write_run


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(read_ahead, "_WORTHWHILE", 1)
    monkeypatch.setattr(read_ahead, "_cpus", lambda: 2)


def histories(folder, count=5):
    paths = []
    for index in range(count):
        paths.append(folder / f"h{index}.jsonl")
        history = History(paths[-1], [])
        for epoch in range(4):
            loss = math.inf if epoch == 3 else 1 / (1 + epoch + index)
            history.append(7 * epoch, epoch, "h", {"a/loss": loss, "a/error": epoch})
    return paths


def equal(one, other):
    assert one.tags == other.tags
    assert one.name == other.name
    assert np.array_equal(one.step, other.step)
    assert np.array_equal(one.epoch, other.epoch)
    for tag in one.tags:
        for a, b in zip(one.line(tag), other.line(tag), strict=True):
            assert np.array_equal(a, b)


def test_what_is_read_ahead_is_what_this_process_reads(tmp_path, always):
    paths = histories(tmp_path)
    with reading_ahead(paths) as ahead:
        for path in reversed(paths):
            equal(ahead.take(path), read_ordered_columns(path))
            assert ahead.take(path) is None  # it is handed out once
    only = read_ordered_columns(paths[0]).only(lambda tag: tag.endswith("loss"))
    equal(only, read_ordered_columns(paths[0], lambda tag: tag.endswith("loss")))


def test_what_cannot_be_read_is_left_to_this_process(tmp_path, always):
    paths = histories(tmp_path)
    paths[1].write_text('{"step": 0, "values"\n' * 3)
    with reading_ahead([*paths, tmp_path / "none.jsonl"]) as ahead:
        found = [ahead.take(path) is None for path in (*paths, tmp_path / "none.jsonl")]
    assert found == [False, True, False, False, False, True]


def test_a_process_that_is_killed_leaves_its_files_to_this_one(tmp_path, always, monkeypatch):
    started = []
    popen = read_ahead.subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        started[-1].kill()
        return started[-1]

    monkeypatch.setattr(read_ahead.subprocess, "Popen", start)
    paths = histories(tmp_path)
    with reading_ahead(paths) as ahead:
        assert [ahead.take(path) for path in paths] == [None] * 5
    assert len(started) == 2


def test_where_no_process_can_be_started_this_one_reads(tmp_path, always, monkeypatch):
    def start(*args, **kwargs):
        raise BlockingIOError

    monkeypatch.setattr(read_ahead.subprocess, "Popen", start)
    paths = histories(tmp_path)
    with reading_ahead(paths) as ahead:
        assert [ahead.take(path) for path in paths] == [None] * 5


def test_few_small_or_very_large_files_start_no_process(tmp_path, monkeypatch):
    def start(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(read_ahead.subprocess, "Popen", start)
    paths = histories(tmp_path)
    with reading_ahead(paths) as ahead:
        assert ahead.take(paths[0]) is None
    monkeypatch.setattr(read_ahead, "_WORTHWHILE", 1)
    monkeypatch.setattr(read_ahead, "_LARGEST", 10)
    with reading_ahead(paths) as ahead:
        assert ahead.take(paths[0]) is None


def test_no_process_is_left_after_an_error(tmp_path, always, monkeypatch):
    started = []
    popen = read_ahead.subprocess.Popen
    monkeypatch.setattr(
        read_ahead.subprocess,
        "Popen",
        lambda *a, **k: started.append(popen(*a, **k)) or started[-1],
    )
    with pytest.raises(KeyError), reading_ahead(histories(tmp_path)):
        raise KeyError
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


def test_a_comparison_is_the_same(tmp_path, always, monkeypatch):
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", "BP", seed, epochs=3)
        write_run(tmp_path / f"b{seed}", "DFA", seed, epochs=3)
    ahead = str(compare(tmp_path, baseline="BP"))
    monkeypatch.setattr(read_ahead, "_cpus", lambda: 1)
    assert str(compare(tmp_path, baseline="BP")) == ahead


@pytest.mark.skipif(os.name == "nt", reason="no bytes in names of files")
def test_a_name_that_is_not_text(tmp_path, always):
    folder = tmp_path / os.fsdecode(b"run\xff")
    folder.mkdir()
    paths = histories(folder, 2)
    with reading_ahead(paths) as ahead:
        equal(ahead.take(paths[0]), read_ordered_columns(paths[0]))
