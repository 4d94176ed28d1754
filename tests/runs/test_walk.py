"""Walking through links: each real folder once, and never in a circle."""

import pytest

from lit_credit.runs import find_runs
from lit_credit.runs.walk import files_below, walk
from lit_credit.runs.weight_paths import expanded_weights


def history(folder):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "name": "", "values": {}}\n')
    return folder


@pytest.fixture
def place(tmp_path):
    """``in/a`` beside links to ``in/a``, to ``out/b``, to folders above, and to nothing."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    history(inside / "a")
    history(outside / "b")
    (inside / "0_twin_of_a").symlink_to(inside / "a")
    (inside / "b").symlink_to(outside / "b")
    (inside / "a" / "up").symlink_to(inside)
    (inside / "above").symlink_to(tmp_path)
    (inside / "itself").symlink_to(inside / "itself")
    (inside / "nothing").symlink_to(tmp_path / "missing")
    (outside / "b" / "back").symlink_to(inside)
    return inside


def test_each_real_folder_once_and_without_a_link_where_there_is_such_a_path(place):
    found = [at for at, _, _ in walk(place)]
    assert found == [str(place), str(place / "a"), str(place / "b")]
    assert [at for at, _, _ in walk(place, links=False)] == found[:2]


def test_a_folder_that_is_left_out_is_not_reached_by_its_link(place):
    found = []
    for at, folders, _ in walk(place):
        found.append(at)
        folders[:] = [name for name in folders if name != "b"]
    assert found == [str(place), str(place / "a")]


def test_runs_behind_links_are_found_once(place):
    runs = [place / "a", place / "b"]
    assert find_runs(place) == runs
    assert find_runs([place, place.parent / "out", place / "0_twin_of_a"]) == runs
    assert find_runs(place / "b") == [place / "b"]


def test_a_link_may_be_the_place_to_begin(place):
    link = place.parent / "link"
    link.symlink_to(place)
    assert find_runs(link) == [link / "a", link / "b"]


def test_checkpoints_behind_a_link_are_found(place):
    (place.parent / "out" / "b" / "last.ckpt").write_bytes(b"x")
    assert files_below(place, ".ckpt") == [place / "b" / "last.ckpt"]
    assert files_below(place / "missing", ".ckpt") == []
    assert expanded_weights(place) == [place / "b" / "last.ckpt"]
