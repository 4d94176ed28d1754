"""Runs compared by what their layers know."""

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from lit_credit.cli.compare import main
from lit_credit.comparison import compare, representation_similarity
from lit_credit.comparison.representations import likenesses, similarity_figure
from lit_credit.functional import linear_cka
from lit_credit.functional.representations import centred_gram
from lit_credit.runs.representations import SavedGrams
from tests.cli.synthetic_runs import write_run
from tests.functional.heads import randn, random_orthonormal

N = 9
UPPER = np.triu_indices(N, 1)


def save(folder, layers, digest="abc"):
    grams = np.stack([centred_gram(x).numpy()[UPPER] for x in layers]).astype(np.float32)
    names = [f"block{i}" for i in range(len(layers))]
    saved = SavedGrams(grams, names, N, 20, digest)
    (folder / "representations.npz").write_bytes(saved.to_bytes())


def layers_of(rule, seed):
    return [randn(N, 4, seed=100 * len(rule) + 10 * seed + i) for i in range(3)]


@pytest.fixture
def study(tmp_path):
    for rule in ("BP", "DFA"):
        for seed in (1, 2):
            folder = tmp_path / "runs" / rule / str(seed)
            write_run(folder, rule, seed, epochs=2)
            save(folder, layers_of(rule, seed))
    return tmp_path / "runs"


def mean_cka(pairs, i, j):
    return np.mean(
        [linear_cka(layers_of(*one)[i], layers_of(*other)[j]).item() for one, other in pairs]
    )


def test_two_runs_layer_by_layer(study):
    found = representation_similarity(study / "BP" / "1", study / "DFA" / "2")
    for i in range(3):
        for j in range(3):
            expected = mean_cka([(("BP", 1), ("DFA", 2))], i, j)
            assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_equal_runs_give_one(study):
    one = study / "BP" / "1"
    same = representation_similarity(one, one)
    assert same.diagonal() == pytest.approx([1, 1, 1], abs=1e-9)
    turned = [3 * x @ random_orthonormal(4, 4, seed=5) for x in layers_of("BP", 1)]
    save(study / "DFA" / "1", turned)
    assert representation_similarity(one, study / "DFA" / "1") == pytest.approx(same, abs=1e-6)


def test_the_table_the_figure_and_the_columns(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(study), "--representations", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = (i for i, line in enumerate(lines) if line.startswith("CKA with BP"))
    assert lines[head].split() == ["CKA", "with", "BP", "pairs", "L00", "L01", "L02"]
    seeds = [(("BP", 1), ("BP", 2))]
    rules = [(("BP", s), ("DFA", s)) for s in (1, 2)]
    for line, name, pairs in (
        (lines[head + 1], "BP, other seeds", seeds),
        (lines[head + 2], "DFA", rules),
    ):
        assert line.startswith(name)
        numbers = [float(x) for x in line.removeprefix(name).split()]
        assert numbers == pytest.approx(
            [len(pairs), *(mean_cka(pairs, i, i) for i in range(3))], abs=6e-4
        )
    assert (out / "representations.png").read_bytes().startswith(b"\x89PNG")
    with (out / "comparison.csv").open() as file:
        rows = {row["rule"]: row for row in csv.DictReader(file)}
    assert float(rows["DFA"]["cka/L01"]) == pytest.approx(mean_cka(rules, 1, 1), abs=1e-6)
    assert "representations.png" not in str(compare(study))
    assert "representations" not in compare(study).figures


def test_the_baseline_is_the_reference(study):
    found = compare(study, baseline="DFA", representations=True)
    table = found.tables[-1]
    assert table.heads[0] == "CKA with DFA"
    assert [row[0] for row in table.rows] == ["BP", "DFA, other seeds"]


def test_a_reference_of_one_run_is_not_compared_with_itself(study):
    found = compare([study / "BP" / "1", study / "DFA"], representations=True)
    assert [row[:2] for row in found.tables[-1].rows] == [["DFA", "1"]]
    # Runs without an equal seed are paired as well.
    found = compare([study / "BP" / "1", study / "DFA" / "2"], representations=True)
    expected = mean_cka([(("BP", 1), ("DFA", 2))], 2, 2)
    assert found.table[1]["cka/L02"] == pytest.approx(expected, abs=1e-6)
    assert math.isnan(found.table[0]["cka/L02"])


def test_another_probe_is_refused_with_both_runs_and_digests(study, capsys):
    save(study / "DFA" / "2", layers_of("DFA", 2), digest="xyz")
    message = (
        rf"{study}/BP/1 and {study}/DFA/2 measured different probes, or read them "
        "differently: digest abc of 9 rows and "
        r"digest xyz of 9 rows.*same validation data"
    )
    with pytest.raises(ValueError, match=message):
        compare(study, representations=True)
    with pytest.raises(ValueError, match=message):
        representation_similarity(study / "BP" / "1", study / "DFA" / "2")
    assert main([str(study), "--representations"]) == 2
    assert "different probes" in capsys.readouterr().err
    assert main([str(study)]) == 0
    save(study / "DFA" / "2", layers_of("DFA", 2), digest="")
    with pytest.raises(ValueError, match="digest unknown"):
        compare(study, representations=True)


def test_runs_without_representations(study):
    (study / "DFA" / "1" / "representations.npz").unlink()
    found = compare(study, representations=True)
    assert any("without representations.npz" in note and "DFA/1" in note for note in found.notes)
    assert [row[1] for row in found.tables[-1].rows] == ["1", "1"]
    for folder in ("DFA/2", "BP/1"):
        (study / folder / "representations.npz").unlink()
    with pytest.raises(ValueError, match=r"1 of 4 runs have representations.npz.*Representations"):
        compare(study, representations=True)
    save(study / "BP" / "1", layers_of("BP", 1))
    with pytest.raises(ValueError, match=r"--baseline: 'DFA' has no finished run with.*'BP'"):
        compare(study, representations=True, baseline="DFA")
    with pytest.raises(ValueError, match=r"DFA/1/representations.npz cannot be read"):
        representation_similarity(study / "BP" / "1", study / "DFA" / "1")


def test_layers_of_other_numbers_and_undefined_ones(study):
    layers = layers_of("DFA", 1)[:2]
    for seed in (1, 2):
        save(study / "DFA" / str(seed), [layers[0], torch.ones(N, 2)])
    found = compare(study, representations=True)
    assert found.tables[-1].heads[2:] == ["L00", "L01"]
    assert found.tables[-1].rows[1][3] == "n/a"
    figure = found.figures["representations"]
    images = [ax.images[0].get_array().shape for ax in figure.axes if ax.images]
    assert images == [(3, 3), (3, 2)]


def test_many_groups_are_drawn_in_rows():
    from lit_credit.comparison.representations import Likeness

    names = ["a", "b"]
    found = [Likeness(f"rule{i}", "BP", np.eye(2), names, names, 1) for i in range(14)]
    axes = [ax for ax in similarity_figure(found).axes if ax.images]
    assert len(axes) == 12
    assert likenesses.__doc__


def test_compare_without_the_option_loads_nothing_of_it(study):
    code = (
        "import sys; from lit_credit.cli.compare import main; main(sys.argv[1:]);"
        "print([n for n in sys.modules if n.endswith('.representations')])"
    )
    command = [sys.executable, "-c", code, str(study / "BP"), "--metric", "val/accuracy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "lit_credit.comparison.representations" not in done.stdout.splitlines()[-1]


def test_other_arguments_are_refused_with_their_values(study, capsys):
    for seed in (1, 2):
        save(study / "DFA" / str(seed), layers_of("DFA", seed), digest="abc read=stream")
    assert main([str(study), "--representations"]) == 2
    assert "digest abc read=stream of 9 rows" in capsys.readouterr().err
