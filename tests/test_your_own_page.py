"""docs/your_own.md and the how-to pages before it: every file, beside its YAML, trains."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lit_credit.cli import main
from lit_credit.comparison import compare
from lit_credit.testing import check_diagnostic

PAGES = ["howto/rule", "your_own", "howto/diagnostic", "howto/task", "howto/data"]
PAGE = "\n".join(Path(f"docs/{page}.md").read_text() for page in PAGES)
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^```sh\nlit-credit (.*?)\n```", PAGE, re.DOTALL | re.MULTILINE)
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files of the page, and the data that its configurations name."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    rng = np.random.default_rng(0)
    for i in range(20):
        place = tmp_path / "pictures" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8)).save(place / f"{i}.png")
    x = rng.standard_normal((60, 3))
    np.savez(tmp_path / "table.npz", x=x, y=x.sum(1, keepdims=True))
    np.savez(tmp_path / "labels.npz", x=x, labels=rng.integers(2, size=(60, 4)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in {Path(name).stem for name in FILES}:
        sys.modules.pop(name, None)


def lit_credit(monkeypatch, words):
    """The command of a terminal, in this process."""
    monkeypatch.setattr(sys, "argv", ["lit-credit", *words])
    return main()


def rows(folder, name):
    (path,) = folder.rglob(f"{name}.jsonl")
    return [json.loads(line)["values"] for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, about small data
@pytest.mark.parametrize(
    ("config", "tags"),
    [
        ("two_passes", ["val/accuracy"]),
        ("top5", ["val/top5", "val/accuracy"]),
        ("labels", ["val/f1"]),
        ("autoencoder", ["val/mae", "val/loss"]),
        ("images", ["val/accuracy"]),
        ("arrays", ["val/r2"]),
        ("dicts", ["val/mae"]),
    ],
)
def test_every_configuration_of_the_page_trains(folder, monkeypatch, capsys, config, tags):
    assert not lit_credit(monkeypatch, ["fit", "--config", f"{config}.yaml", *QUIET])
    *_, last = rows(folder, "metrics")
    assert set(tags) <= last.keys()
    compared = str(compare(folder / "runs", folder / "out"))
    assert all(tag.partition("/")[2] in compared.splitlines()[0] for tag in tags)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_commands_of_the_page_run_and_the_matrices_learn(folder, monkeypatch):
    """Three epochs of the page's thirty: the angle of W and B falls in every layer."""
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        words = command.replace("\\\n", " ").split()
        assert not lit_credit(monkeypatch, [*words, *QUIET, "--trainer.max_epochs=3"])
    first, *_, last = rows(folder / "runs" / "MyKolenPollack", "weight_alignment")
    angles = [tag for tag in first if "angle" in tag]
    assert len(angles) == 3
    assert all(80 < first[tag] < 100 and last[tag] < 60 for tag in angles)
    *_, last = rows(folder / "runs" / "TargetProjection", "metrics")
    assert last["val/accuracy"] > 0.4  # chance is 0.1
    (first, *_, last) = rows(folder / "runs" / "TargetProjection", "weight_alignment")
    assert last["weight/angle/layers.1"] < first["weight/angle/layers.1"] - 5


def test_the_rules_are_as_short_as_their_titles_say():
    for name, title in (("my_rules.py", "12 lines"), ("my_targets.py", "20 lines")):
        assert len(FILES[name].strip().splitlines()) <= int(title.split()[0])
        assert f"in {title}" in PAGE


def test_the_target_is_sent_through_the_matrices(folder):
    sys.path.insert(0, str(folder))
    from my_targets import TargetProjection

    from lit_credit.models import MLP
    from lit_credit.tasks import Classification

    rule = TargetProjection(MLP(4, [3, 2], 5), Classification(5), feedback_seed=1)
    batch = torch.zeros(6, 4), torch.arange(6) % 5
    credit = rule.credit(batch)
    matrix = rule.feedback.matrix  # (3 + 2, 5)
    expected = torch.stack([-matrix[:, y] / 6 for y in batch[1]])
    found = torch.cat([credit["net.layers.0"], credit["net.layers.1"]], 1)
    torch.testing.assert_close(found, expected)


def test_the_diagnostic_measures_the_rank_and_changes_nothing(folder):
    sys.path.insert(0, str(folder))
    from my_diagnostics import StableRank

    assert check_diagnostic(partial(StableRank, every_n_steps=1), kinds=["automatic", "DFA"])
    head = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    diagnostic, module = StableRank(), nn.ModuleDict({"head": nn.Linear(3, 5)})
    module["head"].weight = nn.Parameter(head)
    diagnostic.update(SimpleNamespace(module=module))
    singular = np.linalg.svd(head.numpy().astype(float), compute_uv=False)
    expected = (singular**2).sum() / singular[0] ** 2
    assert diagnostic.compute() == {"stable/head": pytest.approx(expected, rel=1e-5)}
