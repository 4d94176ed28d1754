"""The rows of a resumed run are found, wherever its file is by now, and in whatever state."""

import os
import shutil
import warnings

import pytest

from lit_credit.runs.history import History, read_history

NAME = "a.jsonl"


def add(history, *steps):
    for step in steps:
        history.append(step, 0, "a", {"a/x": step / 3})


def run(folder, saved=3, more=2):
    """A history of a run that goes on for some rows behind its checkpoint; and what that holds."""
    history = History(folder / NAME)
    add(history, *range(saved))
    state = history.state()
    add(history, *range(saved, saved + more))
    return state


def resumed(state, path, step, checkpoint=None):
    history = History()
    history.load(state)
    history.open(path, step, checkpoint)
    return history


def steps(history):
    return [row["step"] for row in history.rows]


def test_a_state_has_no_rows_and_does_not_grow(tmp_path):
    history = History(tmp_path / NAME)
    add(history, 0)
    first = history.state()
    add(history, *range(1, 500))
    later = history.state()
    assert first["rows"] == later["rows"] == []
    assert len(str(later)) < len(str(first)) + 20
    assert (first["last_step"], later["last_step"]) == (0, 499)


def test_in_the_same_folder_what_comes_later_is_cut(tmp_path):
    state = run(tmp_path)
    history = resumed(state, tmp_path / NAME, 2)
    assert steps(history) == [0, 1, 2]
    assert read_history(tmp_path / NAME) == history.rows
    add(history, 3)
    assert steps(resumed(history.state(), tmp_path / NAME, 3)) == [0, 1, 2, 3]
    assert os.listdir(tmp_path) == [NAME]


def test_a_row_that_was_measured_before_the_next_step_stays(tmp_path):
    """The checkpoint was saved at step 3, before a measurement at that step."""
    history = resumed(run(tmp_path), tmp_path / NAME, 3)
    assert steps(history) == [0, 1, 2, 3]
    assert steps(resumed(run(tmp_path / "b"), tmp_path / "b" / NAME, -1)) == [0, 1, 2]


def moved(folder, checkpoint):
    """The run's folder, with the checkpoint in it."""
    shutil.move(folder, folder.parent / "moved")
    return folder.parent / "moved" / checkpoint.relative_to(folder)


def moved_above(folder, checkpoint):
    """A folder above that of the run and that of its checkpoints."""
    top = folder.parent
    shutil.move(top, top.parent / "moved")
    return top.parent / "moved" / "elsewhere" / "b.ckpt"


def kept_aside(folder, checkpoint):
    """Another run has begun in the folder."""
    add(History(folder / NAME), 7, 8)
    return checkpoint


def untouched(folder, checkpoint):
    return checkpoint


def untouched_beside(folder, checkpoint):
    return folder.parent / "elsewhere" / "b.ckpt"


@pytest.mark.parametrize(
    "change",
    [moved, moved_above, kept_aside, untouched, untouched_beside],
    ids=lambda x: x.__name__,
)
@pytest.mark.parametrize("own", ["another folder", "none"])
def test_the_rows_are_found_wherever_the_file_is(change, own, tmp_path):
    folder = tmp_path / "top" / "run"
    state = run(folder)
    checkpoint = folder / "checkpoints" / "a.ckpt"
    for path in (checkpoint, folder.parent / "elsewhere" / "b.ckpt"):
        path.parent.mkdir()
        path.touch()
    checkpoint = change(folder, checkpoint)
    path = None if own == "none" else tmp_path / "new" / NAME
    history = resumed(state, path, 2, checkpoint)
    assert steps(history) == [0, 1, 2]
    if path is not None:
        assert read_history(path) == history.rows
    # The next state says where they are now, or has them.
    again = resumed(history.state(), path, 2)
    assert again.rows == history.rows


def test_the_file_of_another_run_is_kept_and_its_rows_are_not_taken(tmp_path):
    state = run(tmp_path / "a")
    add(History(tmp_path / "b" / NAME), 1, 2)
    history = resumed(state, tmp_path / "b" / NAME, 2)
    assert steps(history) == [0, 1, 2]
    assert [row["step"] for row in read_history(tmp_path / "b" / "a.1.jsonl")] == [1, 2]
    assert read_history(tmp_path / "b" / NAME) == history.rows


def test_without_a_file_the_state_has_the_rows(tmp_path):
    history = History()
    add(history, 0, 1)
    state = history.state()
    assert [row["step"] for row in state["rows"]] == [0, 1]
    assert steps(resumed(state, tmp_path / NAME, 1)) == [0, 1]
    assert len(read_history(tmp_path / NAME)) == 2


def test_an_older_state_with_all_rows_loads(tmp_path):
    run(tmp_path)
    rows = read_history(tmp_path / NAME)[:3]
    history = resumed({"rows": rows, "probe": None}, tmp_path / NAME, 2)
    assert history.rows == read_history(tmp_path / NAME) == rows
    assert history.last_step == 2
    assert os.listdir(tmp_path) == [NAME]


def test_a_state_that_was_not_opened_is_handed_on(tmp_path):
    state = run(tmp_path)
    history = History()
    history.load(state)
    assert history.state() == state


# Files that are not what they were


def missing(path):
    path.unlink()


def shortened(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def edited(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace("0.33", "0.34"), *lines[2:]]))


def broken(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "no row\n", *lines[2:]]))


def another(path):
    path.write_text(path.read_text().replace('"a"', '"b"'))


CHANGES = {
    missing: ("there is no such file any more", []),
    shortened: ("is shorter than it was, or was changed", [0, 1]),
    edited: ("is shorter than it was, or was changed", [0, 1, 2]),
    broken: ("is shorter than it was, or was changed", [0, 1]),
    another: ("does not begin as that of the run did", []),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda x: x.__name__)
@pytest.mark.parametrize("place", ["same", "new"])
def test_a_file_that_is_not_what_it_was_is_told_and_the_run_goes_on(change, place, tmp_path):
    says, left = CHANGES[change]
    state = run(tmp_path / "run")
    path = tmp_path / "run" / NAME
    change(path)
    before = path.read_text() if path.exists() else None
    own = path if place == "same" else tmp_path / "new" / NAME
    expected = f"{says}.*Of the 3 rows.*goes on with {len(left)}"
    with pytest.warns(UserWarning, match=expected) as told:
        history = resumed(state, own, 2, tmp_path / "run" / "a.ckpt")
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    assert steps(history) == left
    assert history.last_step == 2  # nothing is measured again that was measured
    add(history, 5)
    assert [row["step"] for row in read_history(own)] == [*left, 5]
    # What the file had is still there.
    kept = [file.read_text() for file in (tmp_path / "run").iterdir()]
    assert before is None or before in kept or any(text.startswith(before) for text in kept), kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert steps(resumed(history.state(), own, 5)) == [*left, 5]


def test_rows_that_the_disk_did_not_take_are_in_the_state_alone(tmp_path):
    history = History(tmp_path / NAME)
    add(history, 0, 1)
    history.path.unlink()
    history.path.mkdir()  # so that nothing can be written
    with pytest.warns(UserWarning, match="cannot be written"):
        add(history, 2)
    state = history.state()
    assert [row["step"] for row in state["rows"]] == [0, 1, 2]
    history.path.rmdir()
    assert steps(resumed(state, tmp_path / NAME, 2)) == [0, 1, 2]
