"""What cannot be compared is named, and nothing is written."""

import pytest

from lit_credit.cli.compare import main
from tests.cli.synthetic_runs import write_run


def missing(tmp_path):
    return tmp_path / "absent"


def empty(tmp_path):
    return tmp_path


def no_rows(tmp_path):
    folder = write_run(tmp_path / "a", "BP", 1, epochs=2)
    (folder / "metrics.jsonl").write_text("")
    return tmp_path


def config_without_class(tmp_path):
    folder = write_run(tmp_path / "a", "BP", 1, epochs=2)
    (folder / "config.yaml").write_text("trainer: {}\nmodel: resnet")
    return tmp_path


def broken_config(tmp_path):
    folder = write_run(tmp_path / "a", "BP", 1, epochs=2)
    (folder / "config.yaml").write_text("model: [")
    return tmp_path


def broken_history(tmp_path):
    folder = write_run(tmp_path / "a", "BP", 1, epochs=2)
    (folder / "metrics.jsonl").write_text("nonsense\n" * 2)
    return tmp_path


def a_file(tmp_path):
    return write_run(tmp_path / "a", "BP", 1, epochs=2) / "metrics.jsonl"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "no folder"),
        (a_file, "/a/metrics.jsonl' is a file, not a folder. Give"),
        (empty, "no run in"),
        (no_rows, "metrics.jsonl: no rows"),
        (config_without_class, "model.class_path"),
        (broken_config, "model.class_path"),
        (broken_history, "not a row of a history"),
    ],
)
def test_errors_are_clear_and_write_nothing(make, message, tmp_path, capsys):
    runs = make(tmp_path)
    assert main([str(runs), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("lit-credit compare: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_the_table_of_a_sweep_leads_to_its_folder(tmp_path, capsys):
    write_run(tmp_path / "sweep" / "a", "BP", 1, epochs=2)
    table = tmp_path / "sweep.csv"
    table.write_text("model\nBP\n")
    assert main([str(table)]) == 2
    assert f"Give '{tmp_path}/sweep', which holds the runs of this table" in capsys.readouterr().err


def test_out_must_be_a_folder(tmp_path, capsys):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    assert "error" in capsys.readouterr().err


def test_usage_error():
    with pytest.raises(SystemExit) as exit_info:
        main([])
    assert exit_info.value.code == 2
