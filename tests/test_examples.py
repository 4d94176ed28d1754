"""The examples: other people's projects, with the diagnostics in them."""

import ast
import json
import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from lit_credit.runs.history import read_history
from tests.support import events

EXAMPLES = Path("examples")
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
CALLBACKS = {
    "demo_transformer": ["attention_maps", "gradient_norms", "residual_norms", "softmax_jacobian"],
    "resnet18": ["gradient_norms", "residual_norms"],
    "vit": [
        "attention_maps",
        "gradient_norms",
        "head_attribution",
        "residual_norms",
        "softmax_jacobian",
    ],
    "hugging_face_gpt2": [
        "attention_maps",
        "circuit_matching",
        "gradient_norms",
        "head_attribution",
        "head_behaviour",
        "residual_norms",
    ],
    "nanogpt": [
        "attention_maps",
        "circuit_matching",
        "head_attribution",
        "head_behaviour",
        "residual_norms",
    ],
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_little_of_ours_is_imported(path):
    ours = {name for name in imports(path) if name.split(".")[0] in ("lit_credit", "tests")}
    if path.stem == "plain_pytorch":
        assert ours == {"lit_credit.feedback", "lit_credit.functional"}
    elif path.stem.startswith("diagnose_"):
        assert ours == {"lit_credit", "lit_credit.callbacks"}
    else:
        assert ours == {"lit_credit.callbacks"}


def test_the_page_has_a_command_for_each():
    page = (EXAMPLES / "README.md").read_text()
    files = [*SCRIPTS, *EXAMPLES.glob("*.yaml")]
    assert len(files) == 8
    for path in files:
        assert f"python {path}" in page or f"--config {path}" in page


def run(name, folder, *words):
    import_module(f"examples.{name}").main([*words, "--out", str(folder)])
    return folder / "lightning_logs" / "version_0"


def history(folder, name):
    """The values of each measurement, without the section."""
    rows = read_history(folder / f"{name}.jsonl")
    return [{t.partition("/")[2]: v for t, v in row["values"].items()} for row in rows]


def check_left_behind(folder, kind):
    """A history, scalars and a figure of each callback, finite, beside the project's own."""
    board = events(folder)
    for name in CALLBACKS[kind]:
        rows = read_history(folder / f"{name}.jsonl")
        assert len(rows) >= 2
        for row in rows:
            bad = [tag for tag, value in row["values"].items() if not math.isfinite(value)]
            # Of a gradient that is zero a share is undefined: the ViT starts with a readout of 0.
            assert not bad or (name, kind, row["step"]) == ("softmax_jacobian", "vit", 0)
        for tag, value in rows[-1]["values"].items():
            last = board.Scalars(tag)[-1]
            assert last.step == rows[-1]["step"]
            assert last.value == pytest.approx(value, rel=1e-5)
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    assert len(board.Tags()["images"]) >= len(CALLBACKS[kind])
    assert {"train/loss", "val/accuracy", "val/loss"} & set(board.Tags()["scalars"])


# Lightning's demo

SHORT = {"max_epochs": "1", "limit_train_batches": "2"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    options = [word for name, value in SHORT.items() for word in (f"--{name}", value)]
    return run("demo_transformer", folder, *options)


def test_demo_transformer(demo, capsys):
    check_left_behind(demo, "demo_transformer")
    start = history(demo, "residual_norms")[0]
    # A LayerNorm of gain 1 leaves a root mean square of 1: 32 characters of 64 features.
    assert [start["norm/L01"], start["norm/L02"]] == pytest.approx([math.sqrt(32 * 64)] * 2, 1e-3)
    entropies = history(demo, "attention_maps")[0]
    first, second = (
        entropies[f"entropy/model.transformer.encoder.layers.{layer}.self_attn/H00"]
        for layer in (0, 1)
    )
    assert first < 1 < 2.5 < second < math.log(32)
    for values in history(demo, "softmax_jacobian"):
        for tag in [tag for tag in values if tag.startswith("r_diag/")]:
            parts = [values[tag.replace("diag", part)] for part in ("diag", "off", "cross")]
            assert sum(parts) == pytest.approx(1, abs=1e-4 * parts[0])


@pytest.mark.slow
def test_demo_transformer_from_yaml_is_the_same_run(demo, tmp_path, capsys, monkeypatch):
    options = [word for name, value in SHORT.items() for word in (f"--trainer.{name}", value)]
    options += ["--trainer.default_root_dir", str(tmp_path)]
    words = ["example", "fit", "--config", "examples/demo_transformer.yaml", *options]
    monkeypatch.setattr("sys.argv", words)
    import_module("examples.demo_transformer").main()
    folder = tmp_path / "lightning_logs" / "version_0"
    assert str(folder) in capsys.readouterr().out
    check_left_behind(folder, "demo_transformer")
    for name in CALLBACKS["demo_transformer"]:
        for one, other in zip(history(demo, name), history(folder, name), strict=True):
            assert one == pytest.approx(other, rel=1e-4)


# Vision


@pytest.mark.few(1)
@pytest.mark.parametrize("net", ["resnet18", "vit"])
def test_vision(net, tmp_path, capsys):
    options = ["--max_epochs", "1", "--limit_train_batches", "2"]
    folder = run("vision", tmp_path, "--net", net, *options)
    check_left_behind(folder, net)
    before, *_, after = history(folder, "gradient_norms")
    blocks = {"resnet18": 8, "vit": 4}[net]
    assert [tag for tag in after if "norm/" in tag] == [f"norm/L{i:02d}" for i in range(blocks + 1)]
    assert min(after.values()) > 0
    # torchvision starts a ViT with a readout of 0, through which no gradient comes.
    assert (max(before.values()) == 0) == (net == "vit")
    assert "accuracy:" in capsys.readouterr().out


# Language


@pytest.mark.slow
def test_hugging_face_gpt2(tmp_path, capsys):
    example = import_module("examples.hugging_face_gpt2")
    options = ["--max_epochs", "2", "--n_lines", "640"]
    folder = run("hugging_face_gpt2", tmp_path, *options)
    check_left_behind(folder, "hugging_face_gpt2")
    (checkpoint,) = (folder / "checkpoints").iterdir()
    module = example.CausalLM.load_from_checkpoint(checkpoint).eval()
    batch = example.collate(example.lines(640)[-64:])
    with torch.no_grad():
        guesses = module(**batch).logits[:, :-1].argmax(-1)
    asked = batch["labels"][:, 1:] >= 0
    right = (guesses == batch["labels"][:, 1:])[asked].float().mean().item()
    group = history(folder, "head_attribution")[-1]["accuracy/group"]
    assert group == pytest.approx(right, abs=2e-3)
    assert right > 0.1
    assert f"{group:.1%} of the time" in capsys.readouterr().out


@pytest.mark.slow
def test_nanogpt(tmp_path, capsys):
    folder = run("nanogpt", tmp_path, "--max_epochs", "1")
    check_left_behind(folder, "nanogpt")
    before, after = (history(folder, "circuit_matching")[row] for row in (0, -1))
    assert before["z/best"] < before["z/null"] + 2 * before["null_sd/z"]
    assert after["z/best"] > after["z/null"] + 3 * after["null_sd/z"]
    behaviour = history(folder, "head_behaviour")
    assert behaviour[-1]["induction/best"] > 2 * behaviour[0]["induction/best"]


def test_nanogpt_data_can_be_copied():
    example = import_module("examples.nanogpt")
    torch.manual_seed(0)
    x, y = next(iter(DataLoader(example.copies(50), batch_size=50)))
    assert torch.equal(x[:, 1:][y[:, :-1] >= 0], y[:, :-1][y[:, :-1] >= 0])
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        start = next(i for i, letter in enumerate(target) if letter >= 0)
        assert all(target[i] == row[i - start] for i in range(start, len(row)))


# Without Lightning


def test_plain_pytorch(tmp_path, capsys):
    import_module("examples.plain_pytorch").main(["--max_epochs", "6", "--out", str(tmp_path)])
    rows = {
        rule: [json.loads(line) for line in (tmp_path / f"{rule}.jsonl").read_text().splitlines()]
        for rule in ("BP", "FA", "DFA")
    }
    first, readout = "cosine/hidden1.0.weight", "cosine/readout.weight"
    for rule, history in rows.items():
        assert len(history) == 7
        assert history[-1]["accuracy"] > 0.8
        assert history[-1][readout] == pytest.approx(1, abs=1e-5)
        board = events(tmp_path / rule)
        assert [e.value for e in board.Scalars(first)] == pytest.approx([r[first] for r in history])
        if rule == "BP":
            assert min(row[first] for row in history) == pytest.approx(1, abs=1e-5)
        else:
            assert abs(history[0][first]) < 0.2 < 0.3 < history[-1][first] < 0.95
    angles = [row["angle/hidden2.0"] for row in rows["FA"]]
    assert abs(angles[0] - 90) < 2
    assert angles[-1] < angles[0] - 2
    assert (tmp_path / "alignment.png").stat().st_size > 10_000
    assert "degrees" in capsys.readouterr().out


# Nets that are trained already


def test_diagnose_checkpoints(tmp_path, capsys):
    import_module("examples.diagnose_checkpoints").main(["--steps", "400", "--out", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert Path(printed[-1]).read_bytes().startswith(b"\x89PNG")
    net = import_module("examples.diagnose_checkpoints").Net()
    x, _ = import_module("examples.diagnose_checkpoints").digits()
    rows = read_history(tmp_path / "diagnosis" / "residual_norms.jsonl")
    assert [row["step"] for row in rows] == [0, 200, 400]
    for row in rows:
        saved = torch.load(tmp_path / "ckpts" / f"ckpt_{row['step']}.pt", weights_only=True)
        net.load_state_dict(saved["model"])
        with torch.no_grad():
            h = net.embed(x[:256])
            norms = [h.norm(dim=1).median().item()]
            for block in net.blocks:
                h = block(h)
                norms.append(h.norm(dim=1).median().item())
        assert list(row["values"].values()) == pytest.approx(norms, rel=1e-4)
    first, *_, last = read_history(tmp_path / "diagnosis" / "gradient_norms.jsonl")
    assert 0 < last["values"]["gradient/norm/L00"] < first["values"]["gradient/norm/L00"] / 10


@pytest.mark.slow
def test_diagnose_huggingface(tmp_path, capsys):
    example = import_module("examples.diagnose_huggingface")
    words = ["--out", str(tmp_path)]
    example.main(words)
    printed = capsys.readouterr().out
    names = CALLBACKS["hugging_face_gpt2"]
    for name in names:
        assert (tmp_path / "now" / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / "revisions" / "figures" / f"{name}.png").stat().st_size > 10_000
        rows = read_history(tmp_path / "revisions" / f"{name}.jsonl")
        assert [row["step"] for row in rows] == [0, 20, 40]
        assert all(math.isfinite(value) for row in rows for value in row["values"].values())
        assert f"{name}\n" in printed
        assert f"{name}, 3 checkpoints, steps 0 to 40" in printed
    model = example.tiny().eval()
    batch = example.batch_of(list(example.TEXT.encode("ascii", "replace")))
    start, _, last = read_history(tmp_path / "revisions" / "residual_norms.jsonl")
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).hidden_states
    norm = hidden[0].flatten(1).norm(dim=1).median().item()
    assert start["values"]["residual/norm/L00"] == pytest.approx(norm, rel=1e-4)
    assert last["values"]["residual/norm/L02"] > 2 * start["values"]["residual/norm/L02"]
