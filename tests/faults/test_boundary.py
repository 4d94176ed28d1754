"""Before the first step an error is a line that names the part; after it a bug has a traceback."""

import pytest

from lit_credit.cli import main
from lit_credit.cli.boundary import reason

MLP = "{class_path: ResidualMLP, init_args: {in_features: 64, depth: 1, width: 8}}"
OWN = "tests.faults.own"
HINT = "LIT_CREDIT_TRACEBACK=1 shows where"
SLICE = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]


def config(net=MLP, data="Digits", task="Classification", rule="BP", more="", trainer=""):
    comma = ", " if more else ""
    return (
        f"model: {{class_path: {rule}, init_args: {{{more}{comma}task: {task}, net: {net}}}}}\n"
        f"data: {data}\ntrainer: {{{trainer}}}\n"
    )


def own(name, fault):
    return f"{{class_path: {OWN}.{name}, init_args: {{{fault}}}}}"


def net(fault):
    return config(own("Net", f"fault: {fault}"), own("Data", ""))


def data(fault):
    return config(own("Net", ""), own("Data", f"fault: {fault}"))


def callback(hook):
    return config(trainer=f"callbacks: [{own('Faulty', f'hook: {hook}')}]")


def lightning(name, **arguments):
    shown = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    text = f"{{class_path: lightning.pytorch.callbacks.{name}, init_args: {{{shown}}}}}"
    return config(trainer=f"callbacks: [{text}]")


def task(fault):
    return config(task=own("Task", f"fault: {fault}"))


def torch_class(argument, path, arguments):
    return config(more=f"{argument}: {{class_path: {path}, init_args: {{{arguments}}}}}")


def optimizer(name, arguments):
    return torch_class("optimizer", f"torch.optim.{name}", arguments)


def scheduler(name, arguments, module="torch.optim.lr_scheduler"):
    return torch_class("lr_scheduler", f"{module}.{name}", arguments)


WATCHED = ["train/loss, val/loss, val/accuracy, hp/accuracy"]
CASES = {
    # Construction
    "a net, KeyError": (net("key"), ["`model.init_args.net` (Net): KeyError: 'width'", "own.py,"]),
    "a net, ZeroDivisionError": (net("division"), ["init_args.net` (Net): ZeroDivisionError"]),
    "a net, AttributeError": (net("attribute"), ["init_args.net` (Net): ", "'nothing'"]),
    "a net, ImportError": (net("import"), ["(Net): No module named 'no_such_package'"]),
    "a net, no text": (net("no text"), ["init_args.net` (Net): NotImplementedError"]),
    "a function": (config(f"{OWN}.make_net"), ["`model.init_args.net` (make_net): KeyError: 'x'"]),
    "an argument of a function": (
        config("{class_path: torchvision.models.resnet18, dict_kwargs: {num_clases: 10}}"),
        ["`model.init_args.net` (resnet18): ", "'num_clases'"],
    ),
    "a value of a net": (
        config(MLP.replace("width: 8", "width: 0")),
        ["`model.init_args.net` (ResidualMLP): `width` is 0, expected at least 1"],
    ),
    "a callback": (callback("__init__"), ["`trainer.callbacks[0]` (Faulty): KeyError: 'x'"]),
    "data without their file": (data("file"), ["`data` (Data): [Errno 2]", "/nowhere/data.bin"]),
    "metrics": (task("metrics"), ["`model.init_args.task` (Task.metrics): KeyError: 'accuracy'"]),
    "units of a large net": (
        config(own("Net", "layers: 300"), more="units: [layer.7]"),
        ["`model` (BP): `units`: 'layer.7' matches nothing", "from: layers.7,", "and 282 more."],
    ),
    # The Trainer
    "an accelerator": (config(trainer="accelerator: abacus"), ["`accelerator`='abacus'", "cpu"]),
    "an accelerator that needs a package": (
        config(trainer="accelerator: tpu"),
        ["`trainer` cannot be made with `accelerator`='tpu'"],
    ),
    "a strategy": (config(trainer="strategy: magic"), ["with `strategy`='magic'"]),
    "no device": (config(trainer="devices: 0"), ["`devices`=0"]),
    "an interval of 0": (
        config(trainer="val_check_interval: 0"),
        ["`trainer.val_check_interval` is 0, expected above 0"],
    ),
    "an interval in epochs": (
        config(trainer="check_val_every_n_epoch: 0"),
        ["`trainer.check_val_every_n_epoch` is 0, expected at least 1"],
    ),
    "a limit below 0": (
        config(trainer="limit_train_batches: -1"),
        ["with `limit_train_batches`=-1"],
    ),
    "a limit of 2.5": (
        config(trainer="limit_train_batches: 2.5"),
        ["with `limit_train_batches`=2.5"],
    ),
    "an end before the start": (
        config(trainer="min_epochs: 3, max_epochs: 2"),
        ["`trainer.min_epochs` is 3, above `trainer.max_epochs`, 2"],
    ),
    "two checkpoints of one trigger": (
        config(trainer="callbacks: [ModelCheckpoint, ModelCheckpoint]"),
        ["`trainer.callbacks[0]` and `trainer.callbacks[1]` are both ModelCheckpoint", "Change"],
    ),
    "a folder that cannot be made": (
        config(trainer="default_root_dir: /proc/runs"),
        ["`trainer.default_root_dir`='/proc/runs': [Errno 2]"],
    ),
    # Setup
    "data, prepare_data": (data("prepare"), ["`data` (Data.prepare_data): the store is closed"]),
    "data, setup": (data("setup"), ["`data` (Data.setup): KeyError: 'train' (", HINT]),
    "data, a loader": (data("loader"), ["(Data.train_dataloader): AttributeError: no data yet"]),
    "data, samples of different sizes": (data("ragged"), ["`data`: stack expects each tensor"]),
    "a callback, setup": (callback("setup"), ["`trainer.callbacks[0]` (Faulty", "IndexError"]),
    "a callback, the start": (callback("on_train_start"), ["trainer.callbacks[0]` (Faulty"]),
    "a callback, the first step": (callback("on_train_batch_start"), ["callbacks[0]` (Faulty"]),
    "a logger": (
        config(trainer=f"logger: {own('FaultyLogger', 'save_dir: logs')}"),
        ["`trainer.logger` (FaultyLogger.log_hyperparams): KeyError: 'x'"],
    ),
    # Optimizers, schedulers, monitors
    "a learning rate of nan": (optimizer("SGD", "lr: .nan"), ["`lr` of SGD is nan", "finite"]),
    "a learning rate of inf": (optimizer("SGD", "lr: .inf"), ["`lr` of SGD is inf", "finite"]),
    "a momentum of nan": (optimizer("SGD", "momentum: .nan"), ["`momentum` of SGD is nan"]),
    "two ways at once": (
        optimizer("AdamW", "fused: true, foreach: true"),
        ["`optimizer` cannot be made: `fused` and `foreach`"],
    ),
    "an optimizer that fails at its first step": (
        optimizer("SparseAdam", "lr: 0.1"),
        ["`model.init_args.optimizer` (SparseAdam.step): ", "dense gradients"],
    ),
    "a scheduler that fails at its first step": (
        scheduler("CosineAnnealingLR", "T_max: 0"),
        ["`lr_scheduler`: CosineAnnealingLR fails at its first step"],
    ),
    "a scheduler to nan": (
        scheduler("ExponentialLR", "gamma: .nan"),
        ["`lr_scheduler`: `lr` of AdamW is nan"],
    ),
    "a plateau of nothing": (
        scheduler("ReduceLROnPlateau", "monitor: val_loss", "lightning.pytorch.cli"),
        ["`lr_scheduler` watches 'val_loss', which is not logged", *WATCHED],
    ),
    "a checkpoint of nothing": (
        lightning("ModelCheckpoint", monitor="val/acc"),
        ["ModelCheckpoint watches 'val/acc', which is not logged", *WATCHED],
    ),
    "early stopping by nothing": (
        lightning("EarlyStopping", monitor="val/acc"),
        ["EarlyStopping watches 'val/acc'", *WATCHED],
    ),
    "a checkpoint of nothing, another's rule": (
        lightning("ModelCheckpoint", monitor="val/acc").replace("BP", f"{OWN}.Silent"),
        ["ModelCheckpoint watches 'val/acc'", *WATCHED],
    ),
    # The first batch
    "batches that are dictionaries": (
        data("dict"),
        ["Classification reads batches (x, y)", "{x: float32 (16, 1, 8, 8), y: int64 (16,) from 0"],
    ),
    "batches without labels": (data("inputs alone"), ["reads batches (x, y)", "(float32 (16,"]),
    "batches that are a tensor": (data("one tensor"), ["reads batches (x, y)", "float32 (16,"]),
    "labels that are text": (data("text"), ["first batch does not pass through Net", "TypeError"]),
    "labels that are floats": (data("float"), ["first batch does not pass", "float32 (16,))"]),
    "a net of two inputs": (
        config(f"{OWN}.TwoInputs", own("Data", "")),
        ["first batch does not pass through TwoInputs and Classification: TypeError", "'mask'"],
    ),
    "a net that raises": (net("forward"), ["first batch does not pass through Net", "KeyError"]),
    "a net that returns a tuple": (net("tuple"), ["net returns (float32 (16, 10), float32 (16,"]),
    "a net that returns a dict": (net("dict"), ["returns {logits: float32 (16, 10)}", "Wrap"]),
    "a net that returns nothing": (net("none"), ["the net returns None"]),
    "a loss of each sample": (task("each"), ["the loss of Task is float32 (149,), expected"]),
    "a loss that is not there": (task("none"), ["the loss of Task is None, expected"]),
    "a loss that raises": (task("key"), ["first batch does not pass", "TypeError"]),
    "a loss of one argument": (config(task=f"{OWN}.OneArgument"), ["OneArgument.loss() takes 2"]),
    "a torch loss of each sample": (
        config(
            task="{class_path: Classification, init_args: {loss: {class_path: "
            "torch.nn.CrossEntropyLoss, init_args: {reduction: none}}}}"
        ),
        ["the loss of Classification is float32 (149,)", "`reduction`"],
    ),
}


def run(text, folder, *words, command="fit"):
    path = folder / "a.yaml"
    path.write_text(text)
    options = {"accelerator": "cpu", "max_epochs": "1", "limit_train_batches": "4"}
    options |= {"enable_progress_bar": "false", "enable_model_summary": "false"}
    options["default_root_dir"] = str(folder / "runs")
    given = [f"--trainer.{k}={v}" for k, v in options.items() if f"{k}:" not in text]
    return main([command, "--config", str(path), *given, *words])


def errors(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if not line.startswith(("INFO", "Seed set", "GPU", "TPU", "💡"))]


@pytest.mark.filterwarnings("ignore")  # of torch and Lightning, in place of the error or before it
@pytest.mark.parametrize("name", CASES)
def test_an_error_before_the_first_step_is_a_line_that_names_the_part(
    name, tmp_path, capsys, monkeypatch
):
    text, parts = CASES[name]
    monkeypatch.chdir(tmp_path)
    assert run(text, tmp_path) == 1
    (line,) = [x for x in errors(capsys) if x.startswith("lit-credit") or "Traceback" in x]
    assert line.startswith("lit-credit: error: ")
    assert len(line) < 600
    for part in parts:
        assert part in line
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "text",
    [
        lightning("ModelCheckpoint", monitor="hp/accuracy", dirpath="found"),
        lightning("ModelCheckpoint", monitor="step", dirpath="found"),
        lightning("EarlyStopping", monitor="val/loss"),
        lightning("EarlyStopping", monitor="nothing", strict="false"),
        lightning("ModelCheckpoint", monitor="train/own", dirpath="found").replace(
            "BP", f"{OWN}.Logging"
        ),
        scheduler("ReduceLROnPlateau", "monitor: val/loss", "lightning.pytorch.cli"),
    ],
)
def test_what_is_logged_may_be_watched(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(text, tmp_path, "--trainer.log_every_n_steps=1") == 0


def test_a_bug_after_the_first_step_has_a_traceback_and_a_line_about_it(tmp_path, capsys):
    assert run(net("late"), tmp_path) == 1
    lines = errors(capsys)
    assert any(line.startswith("Traceback") for line in lines)
    assert lines[-2] == "ValueError: a slip in the third step"
    assert "after the first step, in `model.init_args.net` (Net.forward): a slip" in lines[-1]
    assert "--ckpt_path last" in lines[-1]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_so_it_is_in_the_other_commands(command, tmp_path, capsys):
    text = net("forward").replace("own.Data", "own.Data")
    assert run(text.replace(own("Data", ""), "Digits"), tmp_path, command=command) == 1
    (line,) = [x for x in errors(capsys) if x.startswith("lit-credit") or "Traceback" in x]
    assert "KeyError" in line


def test_the_error_itself_can_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_CREDIT_TRACEBACK", "1")
    with pytest.raises(KeyError, match="train"):
        run(data("setup"), tmp_path)


def test_a_reason_is_a_line_of_bounded_length():
    text = reason(ValueError("a\nb " * 1000 + "Remedy."))
    assert "\n" not in text
    assert len(text) < 1100
    assert text.endswith("Remedy.")
    assert reason(MemoryError("x")).startswith("out of memory")
