import csv
import json
import math
import os
import re
import statistics
import subprocess
import sys

import pytest
import yaml
from matplotlib.image import imread

from lit_credit.cli.compare import compare, main
from lit_credit.runs.history import History, read_history
from lit_credit.runs.run_folder import read_run
from tests.cli.synthetic_runs import write_run


def read_csv(out):
    with (out / "comparison.csv").open(encoding="utf-8") as file:
        return {row["rule"]: row for row in csv.DictReader(file)}


def last(folder, file, tag, at=-1):
    return read_history(folder / f"{file}.jsonl")[at]["values"][tag]


def edit(path, change):
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def study(tmp_path):
    for rule in ("FrozenUnits", "DFA", "FA", "BP"):
        for seed in (123, 42, 456):
            write_run(tmp_path / "runs" / rule / str(seed) / "version_0", rule, seed, epochs=20)
    return tmp_path


def test_the_whole_study(study, capsys):
    out = study / "out"
    assert main([str(study / "runs"), "--out", str(out)]) == 0
    rows = read_csv(out)
    assert list(rows) == ["BP", "FA", "DFA", "FrozenUnits"]
    dfa = rows["DFA"]
    folders = [study / "runs" / "DFA" / seed / "version_0" for seed in ("42", "123", "456")]
    accuracies = [last(f, "metrics", "val/accuracy") for f in folders]
    ends = [last(f, "residual_norms", "residual/norm/L04") for f in folders]
    starts = [last(f, "residual_norms", "residual/norm/L04", 0) for f in folders]
    gradients = [last(f, "gradient_norms", "gradient/norm/L04") for f in folders]
    cosines = [
        statistics.fmean(last(f, "credit_alignment", f"credit/cosine/L0{i}") for i in range(4))
        for f in folders
    ]
    expected = {
        "accuracy": statistics.fmean(accuracies),
        "accuracy_sd": statistics.stdev(accuracies),
        "h_first": statistics.fmean(starts),
        "h_last": statistics.fmean(ends),
        "h_last_sd": statistics.stdev(ends),
        "growth": statistics.fmean(ends) / statistics.fmean(starts),
        "g_last": statistics.fmean(gradients),
        "cosine": statistics.fmean(cosines),
        "cosine_sd": statistics.stdev(cosines),
    }
    for column, value in expected.items():
        assert float(dfa[column]) == pytest.approx(value, rel=1e-6), column
    assert (dfa["n"], dfa["seeds"], dfa["epochs"]) == ("3", "42 123 456", "20")
    height, width, _ = imread(out / "comparison.png").shape
    assert (height, width) >= (1600, 2400)
    text = capsys.readouterr().out
    assert text.count("n/a") == 2  # the baseline has neither a cosine nor a baseline
    assert "unfinished" not in text
    assert "n/a" not in (out / "comparison.csv").read_text()


def test_flags(study):
    out = study / "out"
    text = str(compare([study / "runs"], out))
    rows = read_csv(out)
    assert [rows[r]["scale_unstable"] for r in rows] == ["0", "1", "1", "0"]
    assert [rows[r]["depth_unused"] for r in rows] == ["0", "0", "1", ""]
    above = float(rows["DFA"]["accuracy"]) - float(rows["FrozenUnits"]["accuracy"])
    assert float(rows["DFA"]["above_frozen"]) == pytest.approx(above, abs=1e-7)
    assert rows["FrozenUnits"]["above_frozen"] == ""
    line = next(line for line in text.splitlines() if line.startswith("DFA"))
    assert line.endswith("scale, depth")
    assert "flag depth: accuracy less than 0.02 above" in text


def test_the_table_is_aligned_and_leaves_out_what_no_rule_has(tmp_path):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    header, line = str(compare([tmp_path], tmp_path / "out")).splitlines()
    assert "above frozen" not in header
    assert "± n/a" in line  # one seed has no spread
    assert line.index("±") < header.index("|h_L| start")
    row = read_csv(tmp_path / "out")["BP"]
    assert (row["accuracy_sd"], row["above_frozen"], row["depth_unused"]) == ("", "", "")


def test_the_baseline_must_share_net_and_data(tmp_path):
    write_run(tmp_path / "a", "DFA", 1, epochs=2)
    write_run(tmp_path / "b", "FrozenUnits", 1, epochs=2, width=64)
    compare([tmp_path], tmp_path / "out")
    assert read_csv(tmp_path / "out")["DFA"]["above_frozen"] == ""


def test_an_unfinished_run_is_in_no_number_but_n(tmp_path):
    whole = [write_run(tmp_path / f"{i}", "DFA", i, epochs=20) for i in (1, 3)]
    folder = write_run(tmp_path / "b", "DFA", 123, epochs=20, until=5)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 72, "epo')  # killed while writing
    found = compare([tmp_path], tmp_path / "out")
    row = read_csv(tmp_path / "out")["DFA"]
    assert (row["n"], row["epochs"], row["unfinished"], row["accuracy_n"]) == ("3", "5", "1", "2")
    mean = statistics.fmean(last(path, "metrics", "val/accuracy") for path in whole)
    assert float(row["accuracy"]) == pytest.approx(mean, rel=1e-6)
    starts = [last(path, "residual_norms", "residual/norm/L04", 0) for path in whole]
    assert float(row["h_first"]) == pytest.approx(statistics.fmean(starts), rel=1e-6)
    line = str(found).splitlines()[1]
    assert f"{mean:.3f} ± " in line
    assert line.count("(n=2)") == 8
    assert line.endswith("scale, 1 unfinished")
    assert re.search(r"\$ \(\$n=2\$\) & ", found.to_latex())
    assert "1 unfinished" in found.to_latex()
    assert f"unfinished: DFA, seed 123 ({folder}): epoch 5 of 20, in no number" in str(found)
    assert "Runs: 2." in found.figures["comparison"].get_supxlabel()


def test_a_row_of_unfinished_runs_has_no_numbers_and_is_drawn(tmp_path):
    write_run(tmp_path / "a", "DFA", 42, epochs=20, until=5)
    write_run(tmp_path / "b", "BP", 42, epochs=20)
    found = compare([tmp_path], tmp_path / "out", baseline="DFA")
    bp, dfa = found.table
    assert (dfa["n"], dfa["accuracy_n"], dfa["unfinished"]) == (1, 0, 1)
    assert math.isnan(dfa["accuracy"])
    assert (bp["accuracy_n"], bp["unfinished"]) == (1, 0)
    assert "no difference to DFA: no finished run" in str(found)
    assert len(found.figures["comparison"].axes[0].lines) > 2


def until(folder, epochs, **trainer):
    """A run killed after some of 20 epochs, with options of the Trainer."""
    write_run(folder, "DFA", 42, epochs=20, until=epochs)
    edit(folder / "config.yaml", lambda config: config["trainer"].update(trainer))
    return folder


def stopping(name):
    return {"callbacks": [{"class_path": f"lightning.pytorch.callbacks.{name}"}]}


@pytest.mark.parametrize(
    ("options", "epochs", "unfinished"),
    [
        # Rows are 12 steps apart, and the next one would be at step 72.
        ({"max_steps": 72}, 5, True),
        ({"max_steps": 71}, 5, False),
        ({"max_steps": 60}, 5, False),
        ({"max_steps": -1}, 5, True),
        ({}, 19, True),
        ({"check_val_every_n_epoch": 3}, 18, False),
        ({"check_val_every_n_epoch": 3}, 17, True),
        ({"check_val_every_n_epoch": None, "val_check_interval": 7}, 19, False),
        ({"check_val_every_n_epoch": None, "val_check_interval": 7}, 17, True),
        ({"val_check_interval": 0.3}, 19, False),
        ({"val_check_interval": 0.3}, 18, True),
        ({"val_check_interval": 1.0}, 19, True),
        ({"max_time": "00:01:00:00"}, 5, False),
        (stopping("EarlyStopping"), 5, False),
        (stopping("ModelCheckpoint"), 5, True),
    ],
)
def test_a_run_is_unfinished_if_another_row_would_have_come(tmp_path, options, epochs, unfinished):
    assert read_run(until(tmp_path / "a", epochs, **options)).unfinished is unfinished


def test_a_run_that_was_tested_after_its_last_step_is_finished(tmp_path):
    folder = until(tmp_path / "a", 5)
    history = History(folder / "test.jsonl")
    history.append(48, 4, "test", {"test/accuracy": 0.5})
    assert read_run(folder).unfinished  # it went on
    (folder / "test.jsonl").unlink()
    History(folder / "test.jsonl").append(60, 5, "test", {"test/accuracy": 0.5})
    assert not read_run(folder).unfinished


def test_histories_that_are_missing_or_stop_early(tmp_path):
    first = write_run(tmp_path / "a", "DFA", 42, epochs=4)
    second = write_run(tmp_path / "b", "DFA", 123, epochs=4)
    (first / "credit_alignment.jsonl").unlink()
    norms = (second / "residual_norms.jsonl").read_text().splitlines(keepends=True)
    (second / "residual_norms.jsonl").write_text("".join(norms[:3]))
    text = str(compare([tmp_path], tmp_path / "out"))
    assert "missing: DFA, seed 42" in text
    assert "residual_norms.jsonl ends at epoch 2" in text
    row = read_csv(tmp_path / "out")["DFA"]
    assert float(row["cosine"]) > 0
    assert row["cosine_sd"] == ""


def test_undefined_stays_undefined(tmp_path):
    folder = write_run(tmp_path / "a", "DFA", 42, epochs=2)
    path = folder / "credit_alignment.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["values"]["credit/cosine/L02"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    compare([tmp_path], tmp_path / "out")
    assert read_csv(tmp_path / "out")["DFA"]["cosine"] == ""


def test_runs_whose_circuits_were_matched_have_their_columns_and_their_figure(tmp_path):
    for rule, z in (("BP", 3.0), ("FA", 0.5)):
        for seed in (1, 2):
            folder = write_run(tmp_path / rule / str(seed), rule, seed, epochs=2)
            (folder / "metrics.jsonl").unlink()
            metrics, circuits = (
                History(folder / f"{name}.jsonl") for name in ("metrics", "circuit_matching")
            )
            for epoch in range(3):
                metrics.append(
                    epoch, epoch, "metrics", {"val/ood_error": 1 - z / 4, "val/id_error": 0.5}
                )
                values = {"z": z + seed, "mismatch": 0.25, "match_rms/R05": 0.1}
                values |= {"match_rms/R10": 0.7}
                tags = {f"circuits/{tag}/best": value for tag, value in values.items()}
                circuits.append(epoch, epoch, "circuit_matching", tags)
    out = tmp_path / "out"
    text = str(compare([tmp_path], out))
    head, bp, *_ = text.splitlines()
    assert head.split()[:6] == ["rule", "n", "ood", "error", "id", "error"]
    assert "4.50 ± 0.71  0.70 ± 0.00  0.25 ± 0.00" in bp
    assert text.endswith("circuits over steps: circuits.png, circuits_log.png")
    assert float(read_csv(out)["FA"]["ood_error"]) == 0.875
    assert {path.name for path in out.iterdir()} == {
        *("circuits.png", "circuits_log.png", "comparison.png", "comparison.csv")
    }


def test_two_experiments_of_one_rule_are_told_apart(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "narrow" / str(seed), "DFA", seed, epochs=2, width=32)
        write_run(tmp_path / "wide" / str(seed), "DFA", seed, epochs=2, width=64)
    compare([tmp_path], tmp_path / "out")
    rows = read_csv(tmp_path / "out")
    assert list(rows) == ["DFA width=32", "DFA width=64"]
    assert all(row["n"] == "2" for row in rows.values())


def test_a_label_has_a_key_of_some_runs_alone(tmp_path):
    for place, width in (("narrow", 32), ("wide", 64)):
        write_run(tmp_path / place / "DFA" / "seed_7", "DFA", 7, epochs=2, width=width)
    write_run(tmp_path / "deep" / "DFA" / "seed_8", "DFA", 8, epochs=2, width=64, depth=9)
    compare([tmp_path], tmp_path / "out")
    assert list(read_csv(tmp_path / "out")) == [
        *("DFA width=32", "DFA width=64", "DFA depth=9 width=64")
    ]


def test_what_is_not_configured_is_not_in_the_label(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"dfa-{seed}", "DFA", seed, epochs=2)
        write_run(tmp_path / f"dfa-wide-{seed}", "DFA", seed, epochs=2, width=64)
    compare([tmp_path], tmp_path / "out")
    assert list(read_csv(tmp_path / "out")) == ["DFA", "DFA width=64"]


def test_paths_and_seeds_do_not_make_an_experiment(tmp_path):
    write_run(tmp_path / "a", "DFA", 1, epochs=2)
    folder = write_run(tmp_path / "b", "DFA", 2, epochs=2)

    def change(config):
        config["data"]["init_args"]["root"] = "/elsewhere"
        config["trainer"]["default_root_dir"] = "/elsewhere"
        config["model"]["init_args"]["feedback_seed"] = 7

    edit(folder / "config.yaml", change)
    compare([tmp_path], tmp_path / "out")
    assert read_csv(tmp_path / "out")["DFA"]["n"] == "2"


def test_one_folder_given_twice_counts_once(tmp_path):
    folder = write_run(tmp_path / "a", "BP", 1, epochs=2)
    compare([tmp_path, folder, os.path.relpath(folder)], tmp_path / "out")
    assert read_csv(tmp_path / "out")["BP"]["n"] == "1"


def test_runs_without_a_seed_are_all_counted(tmp_path):
    for name in "ab":
        folder = write_run(tmp_path / name, "BP", 1, epochs=2)
        edit(folder / "config.yaml", lambda config: config.update(seed_everything=False))
    compare([tmp_path], tmp_path / "out")
    assert read_csv(tmp_path / "out")["BP"]["n"] == "2"


def test_a_comparison_may_be_made_again(tmp_path):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    assert str(compare([tmp_path], tmp_path)) == str(compare([tmp_path], tmp_path))


def test_infinite_growth(tmp_path):
    folder = write_run(tmp_path / "a", "DFA", 1, epochs=2)
    path = folder / "residual_norms.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["values"]["residual/norm/L04"] = "Infinity"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    compare([tmp_path], tmp_path / "out")
    row = read_csv(tmp_path / "out")["DFA"]
    assert float(row["growth"]) == math.inf
    assert row["scale_unstable"] == "1"


def test_no_global_state_of_matplotlib(tmp_path):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    code = (
        "from lit_credit.cli.compare import main; "
        f"main([{str(tmp_path)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "from matplotlib import pyplot; "  # which torchmetrics imports too
        "assert not pyplot.get_fignums()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("latex", "\\begin{tabular}"),
        ("markdown", "| rule |"),
        ("csv", "rule,n,"),
        ("text", "rule "),
    ],
)
def test_formats_print_the_table_alone(tmp_path, capsys, form, begins):
    write_run(tmp_path / "a", "DFA", 1, epochs=20, until=5)
    assert main([str(tmp_path), "--format", form]) == 0
    out, error = capsys.readouterr()
    assert out.startswith(begins)
    note = "unfinished: DFA"
    assert (note in out, note in error) == (form == "text", form != "text")
    assert "unfinished" in out
    assert "Not written: comparison.csv, comparison.png. `--out DIR` writes them." in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_options_of_the_command(tmp_path, capsys):
    for rule in ("BP", "DFA"):
        write_run(tmp_path / rule, rule, 1, epochs=2)
    words = [str(tmp_path), "--metric", "val/*", "--by", "rule", "--baseline", "BP"]
    assert main(words) == 0
    head = capsys.readouterr().out.splitlines()[0].split()
    assert head == ["rule", "n", "accuracy", "loss"]
    assert main([*words[:-1], "FA"]) == 2
    assert "--baseline: 'FA'" in capsys.readouterr().err


def test_help_and_wrong_labels_load_no_lightning(tmp_path):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    code = (
        "import sys; from lit_credit.cli.compare import main\n"
        f"code = main([{str(tmp_path)!r}, '--baseline', 'DFA'])\n"
        "print(code, [n for n in ('torch', 'lightning', 'matplotlib') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout == "2 []\n"
