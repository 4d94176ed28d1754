"""Slips in a configuration: one line that names class, field and value, and an exit code."""

import pytest

from lit_credit.cli import main
from lit_credit.cli.commands import COMMANDS

MLP = "{class_path: ResidualMLP, init_args: {in_features: 64, depth: 2}}"
GOOD = f"model: {{class_path: BP, init_args: {{task: Classification, net: {MLP}}}}}\ndata: Digits\n"
BN = "{class_path: torchvision.models.resnet18, dict_kwargs: {num_classes: 10}}"
RESNET = GOOD.replace(MLP, BN).replace("task:", "units: [layer1], readout: [fc], task:")
FEW = GOOD.replace("depth: 2", "num_classes: 5").replace(
    "task: Classification", "task: {class_path: Classification, init_args: {num_classes: 5}}"
)
WITH = GOOD.replace("net:", "{}, net:").replace("{", "{{").replace("}", "}}").replace("{{}}", "{}")


def given(arguments):
    """The good configuration with further arguments of the rule."""
    return WITH.format(arguments)


PARSED = {  # exit code 2
    "a rule that is unknown": (GOOD.replace("BP", "Backprop"), ["no class Backprop"]),
    "a net that is unknown": (GOOD.replace("ResidualMLP", "ResMLP"), ["net:", "ResMLP"]),
    "a field that is unknown": (GOOD.replace("depth", "dpeth"), ["ResidualMLP", "'dpeth' is not"]),
    "a field that is missing": ("model: {class_path: BP}\ndata: Digits\n", ["required: net, task"]),
    "no model": ("data: Digits\n", ["required", "model"]),
    "no data": (GOOD.replace("data: Digits", ""), ["required", "data"]),
    "a wrong type": (GOOD.replace("2}", "two}"), ["depth: expected int", "two"]),
    "a section that is unknown": (GOOD.replace("data:", "daat:"), ["'daat'"]),
    "arguments beside class_path": (
        "model: {class_path: BP, task: Classification}\ndata: Digits\n",
        ["beside `class_path`", "`init_args`"],
    ),
    "a text that is not YAML": ("model: [BP\ndata: Digits\n", ["not YAML", "line 1"]),
    "an empty file": ("", ["no mapping"]),
    "a list": ("- 3\n- 4\n", ["no mapping"]),
    "a wrong seed": (GOOD + "seed_everything: abc\n", ["seed_everything", "abc", "int"]),
    "an option of the Trainer": (GOOD + "trainer: {epochs: 3}\n", ["epochs"]),
    "a value of the Trainer": (GOOD + "trainer: {max_epochs: x}\n", ["max_epochs: expected int"]),
    "a callback that is unknown": (GOOD + "trainer: {callbacks: [Nothing]}\n", ["Nothing"]),
    "an argument of the optimizer": (
        given("optimizer: {class_path: torch.optim.SGD, init_args: {betas: 3}}"),
        ["optimizer:", "'betas' is not accepted"],
    ),
    "what a scheduler needs": (
        given("lr_scheduler: torch.optim.lr_scheduler.StepLR"),
        ["lr_scheduler:", "required: step_size"],
    ),
}
BUILT = {  # exit code 1
    "a number of devices": (
        GOOD + "trainer: {accelerator: cpu, devices: two}\n",
        ["`trainer` cannot be made", "`devices`"],
    ),
    "a seed below zero": (GOOD + "seed_everything: -3\n", ["`seed_everything` is -3"]),
    "a learning rate": (
        given("optimizer: {class_path: torch.optim.SGD, init_args: {lr: -3}}"),
        ["`optimizer` cannot be made", "learning rate: -3"],
    ),
    "a scheduler": (
        given(
            "lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 0}}"
        ),
        ["`lr_scheduler`: StepLR fails at its first step"],
    ),
    "units that match nothing": (given("units: [nothing]"), ["'nothing' matches nothing"]),
    "units twice": (given("units: [blocks.0, 'blocks.*']"), ["'blocks.0' is matched twice"]),
    "an interval of 0": (
        GOOD + "trainer: {callbacks: [{class_path: GradientNorms, init_args: "
        "{every_n_steps: 0}}]}\n",
        ["`every_n_steps` is 0"],
    ),
    "a batch of 0": (GOOD + "\n", ["`batch_size` is 0"], ["--data.batch_size=0"]),
    "sizes of data and net": (GOOD.replace("64", "63"), ["has 64 numbers", "`in_features`"]),
    "sizes of data and a foreign net": (
        RESNET,
        ["pass through ResNet and Classification", "3 channels", "float32 (", "from 0 to 9"],
    ),
    "too few classes": (FEW, ["out of bounds", "int64 (", "from 0 to 9"]),
    "a checkpoint that is missing": (GOOD, ["no.ckpt"], ["--ckpt_path=no.ckpt"]),
}


def run(text, folder, capsys, *words):
    """The exit code, and what was printed as an error."""
    path = folder / "a.yaml"
    path.write_text(text)
    options = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.max_epochs=1", f"--trainer.default_root_dir={folder / 'runs'}"]
    if "max_epochs: x" in text:
        options.pop(2)
    try:
        code = main(["fit", "--config", str(path), *options, *words])
    except SystemExit as exit_:
        code = exit_.code
    return code, capsys.readouterr().err


def check(case, folder, capsys):
    text, parts, *words = case
    code, error = run(text, folder, capsys, *(words[0] if words else []))
    lines = [line for line in error.splitlines() if not line.startswith(("INFO", "Seed set"))]
    assert len(lines) == 1, error
    assert lines[0].startswith("lit-credit: error: ")
    assert len(lines[0]) < 420
    for part in parts:
        assert part in lines[0]
    return code


@pytest.mark.parametrize("name", PARSED)
def test_the_parser_says_what_is_wrong_in_a_line(name, tmp_path, capsys):
    assert check(PARSED[name], tmp_path, capsys) == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", BUILT)
def test_what_cannot_be_built_or_run_is_told_in_a_line(name, tmp_path, capsys):
    assert check(BUILT[name], tmp_path, capsys) == 1
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_good_one_is_good(tmp_path, capsys):
    code, error = run(GOOD, tmp_path, capsys, "--trainer.limit_train_batches=2")
    assert code == 0
    assert not [x for x in error.splitlines() if not x.startswith(("INFO", "Seed"))], error


def test_files_that_are_none(tmp_path, capsys):
    assert run(GOOD, tmp_path, capsys, "--config=no.yaml")[0] == 2
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    code, error = run(GOOD, tmp_path, capsys, f"--config={tmp_path / 'binary'}")
    assert code == 1
    assert "a file that should be text" in error


def test_the_traceback_can_be_had(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LIT_CREDIT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="out of bounds") as raised:
        run(FEW, tmp_path, capsys)
    assert isinstance(raised.value.__cause__, IndexError)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["compare"], "required"),
        (["compare", "nowhere", "--out", "x"], "nowhere"),
        (["sweep", "--config", "a"], "required"),
        (["sweep", "--config", "a", "--grid", "no.yaml", "--out", "a.csv"], "no.yaml"),
    ],
)
def test_slips_of_the_other_commands_have_code_2(words, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.splitlines()) < 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "part"), [(["fti"], "'fti'"), ([], "usage: lit-credit COMMAND")])
def test_without_a_command_all_are_listed(words, part, capsys):
    assert main(words) == 2
    told = "".join(capsys.readouterr())
    assert part in told
    assert all(f"\n  {command}" in told for command in COMMANDS)
