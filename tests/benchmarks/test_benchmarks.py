"""The benchmarks run and print their rows."""

import logging
import os
import runpy
import sys
from pathlib import Path

import pytest

TINY = ["--rounds", "1"]
WITHOUT_ROUNDS = ("history_growth.py", "digits_rules.py", "ep_bias.py")


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (
            ["step_time.py", "--net", "mlp", "--steps", "1", "--memory-batch-size", "8"],
            ["plain PyTorch BP", "FA", "BlockFA", "DFA, recompute", "SPSA", "ForwardForward"],
        ),
        (
            ["lightning_time.py", "--net", "mlp", "--steps", "2"],
            [f"Lightning adds to {rule}" for rule in ("BP", "BlockFA", "DFA, recompute")],
        ),
        (
            [
                *("callback_time.py", "ResidualNorms", "CreditAlignment", "ScaleStability"),
                *("FiniteGuard", "--epoch-steps", "1", "--batch-size", "8"),
            ],
            ["ResidualNorms", "CreditAlignment", "ScaleStability", "FiniteGuard('skip')"],
        ),
        (
            ["digits_rules.py", "--configs", "bp", "--seeds", "1", "2", "--epochs", "1"],
            ["bp                            2  0."],
        ),
        (["history_growth.py", "--epochs", "1", "2"], ["checkpoint kB", "       2"]),
        (["data_loading.py", "--batches", "1"], ["ratio"]),
        (["ep_bias.py", "--seeds", "1", "--betas", "0.1"], ["one_sided", "symmetric"]),
        (
            ["ngram_time.py", "--steps", "2", "--updates", "2"],
            ["AttentionOnly", "LowRank", "plain", "exact, 2 update(s) a step"],
        ),
        (
            ["adder_time.py", "--steps", "2", "--no-compile"],
            ["bare loop", "50 update(s) a step", "8 seeds at once", "evaluation"],
        ),
        (
            [
                *["vocabulary.py", "--vocab-sizes", "11", "--width", "8", "--depth", "1"],
                *["--positions", "4", "--batch-size", "2", "--rank", "3"],
            ],
            # B: two units of 8 features meet 11 symbols, or 8 features at the readout, or 3 rows.
            ["plain PyTorch BP", *(f" {2 * n} " for n in (88, 44, 64, 36)), " 81 "],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_benchmark_prints_its_rows(words, rows, monkeypatch, capsys, caplog):
    """In this process: another would mostly import torch and Lightning, which takes 6 s."""
    script = Path("benchmarks", words[0])
    tiny = [] if words[0] in WITHOUT_ROUNDS else TINY
    monkeypatch.setattr(sys, "argv", [str(script), *words[1:], *tiny])
    monkeypatch.syspath_prepend(script.parent)  # where Python finds a script's neighbours
    caplog.set_level(logging.INFO, logger="lightning.pytorch")  # which comes back afterwards
    before = set(os.listdir())
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    for row in rows:
        assert row in printed
    assert set(os.listdir()) == before
