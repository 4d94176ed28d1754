"""The benchmarks run and print their rows."""

import os
import subprocess
import sys

import pytest

TINY = ["--rounds", "1"]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (
            ["step_time.py", "--net", "mlp", "--steps", "1", "--memory-batch-size", "8"],
            ["plain PyTorch BP", "FA", "BlockFA", "DFA, recompute", "Lightning adds"],
        ),
        (
            ["callback_time.py", "--epoch-steps", "1", "--batch-size", "8"],
            ["ResidualNorms", "CreditAlignment", "ScaleStability", "FiniteGuard('skip')"],
        ),
        (["history_growth.py", "--epochs", "1", "2"], ["checkpoint kB", "       2"]),
        (["data_loading.py", "--batches", "1"], ["ratio"]),
        (
            ["ngram_time.py", "--steps", "2", "--updates", "2"],
            ["AttentionOnly", "LowRank", "plain", "exact, 2 update(s) a step"],
        ),
        (
            ["adder_time.py", "--steps", "2", "--no-compile"],
            ["bare loop", "50 update(s) a step", "8 seeds at once", "evaluation"],
        ),
    ],
)
def test_benchmark_prints_its_rows(words, rows, tmp_path):
    tiny = [] if words[0] == "history_growth.py" else TINY
    command = [sys.executable, f"benchmarks/{words[0]}", *words[1:], *tiny]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    before = set(os.listdir())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in rows:
        assert row in done.stdout
    assert set(os.listdir()) == before
