"""Run folders, as a person reads them in Python."""

from pathlib import Path

import pytest

from lit_credit.runs import find_runs, read_run

RUN = "tests/files_before/copying"


def test_a_folder_may_be_a_string():
    assert read_run(RUN) == read_run(Path(RUN))


@pytest.mark.parametrize("runs", [RUN, Path(RUN), [RUN]])
def test_one_folder_needs_no_list(runs):
    assert find_runs(runs) == [Path(RUN)]


def test_a_missing_folder_is_refused():
    with pytest.raises(ValueError, match="`folder` is 'nowhere', expected a folder"):
        read_run("nowhere")
