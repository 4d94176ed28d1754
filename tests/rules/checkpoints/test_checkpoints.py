"""Checkpoints: loading, resuming, from the command line and from Python."""

import json
import signal

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.callbacks import CreditAlignment, ResidualNorms
from lit_credit.cli import main
from lit_credit.models import EnergyMLP, ResidualMLP
from lit_credit.rules import (
    BP,
    DFA,
    FA,
    FDFA,
    PEPITA,
    BlockFA,
    DirectKolenPollack,
    EquilibriumPropagation,
    ForwardForward,
    ForwardGradient,
    FrozenUnits,
    KolenPollack,
    LocalLosses,
    PredictiveCoding,
    TargetPropagation,
    WeightMirror,
)
from lit_credit.runs.history import read_history
from lit_credit.tasks import Classification
from tests.support import images, loader, quiet_trainer, seeded
from tests.support.configs import WITHOUT_DIAGNOSTICS
from tests.support.processes import start_module, wait_until

RULES = [
    *(BP, FA, BlockFA, DFA, FrozenUnits),
    *(KolenPollack, WeightMirror, DirectKolenPollack, FDFA, LocalLosses),
    *(PEPITA, PredictiveCoding, ForwardGradient, TargetPropagation),
    ForwardForward,
    EquilibriumPropagation,
]


class Dropping(ResidualMLP):
    """Uses the global random state at every step."""

    def forward(self, x):
        return super().forward(torch.nn.functional.dropout(x, 0.1, self.training))


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)


def net_for(kind):
    if kind is EquilibriumPropagation:
        return EnergyMLP(20, [12, 8], num_classes=5)
    return Dropping(20, width=12, num_classes=5, depth=2)


def make(kind, **kwargs):
    return kind(net_for(kind), Classification(5), lr_scheduler=cosine, **kwargs)


def fit(rule, folder, ckpt_path=None, stop=10, every=None):
    checkpoint = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        save_top_k=-1,
        every_n_train_steps=every,
        every_n_epochs=None if every else 1,
        filename="{step}",
    )
    callbacks = [checkpoint, ResidualNorms(every_n_steps=2, figure=False)]
    callbacks += [CreditAlignment(figure=False)]
    trainer = quiet_trainer(
        max_steps=stop, enable_checkpointing=True, callbacks=callbacks, default_root_dir=folder
    )
    trainer.fit(rule, loader(), loader(n=32), ckpt_path=ckpt_path)
    return rule.state_dict()


@pytest.mark.few(10)
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("cut", [6, 9])  # at an epoch's border, and in the middle of one
def test_a_run_built_in_python_resumes_bit_exactly(kind, cut, tmp_path):
    whole = fit(seeded(lambda: make(kind)), tmp_path / "whole")
    fit(seeded(lambda: make(kind)), tmp_path / "cut", stop=cut, every=3)
    saved = tmp_path / "cut" / "checkpoints" / f"step={cut}.ckpt"
    resumed = fit(seeded(lambda: make(kind), seed=7), tmp_path / "cut", ckpt_path=saved)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    for stem in ("residual_norms", "credit_alignment"):
        rows = [read_history(tmp_path / run / f"{stem}.jsonl") for run in ("whole", "cut")]
        steps = [[row["step"] for row in each] for each in rows]
        assert sorted(set(steps[1])) == steps[1]
        shared = [row for row in rows[1] if row["step"] in steps[0]]
        assert json.dumps(shared) == json.dumps(rows[0])


@pytest.mark.few(6)
@pytest.mark.parametrize("kind", RULES)
def test_a_run_built_in_python_loads_given_its_objects(kind, tmp_path):
    rule = seeded(lambda: make(kind, clip_norm=0.5))
    state = fit(rule, tmp_path, stop=3, every=3)
    saved = tmp_path / "checkpoints" / "step=3.ckpt"
    loaded = kind.load_from_checkpoint(saved, net=net_for(kind), task=Classification(5))
    assert loaded.clip_norm == 0.5
    for name, value in state.items():
        assert torch.equal(loaded.state_dict()[name], value), name


CLI = {
    "bp": BP,
    "fa": FA,
    "block_fa": BlockFA,
    "dfa": DFA,
    "frozen": FrozenUnits,
}


@pytest.mark.parametrize("stem", CLI)
def test_a_run_of_the_command_line_loads_by_its_path_alone(stem, tmp_path):
    args = ["fit", "--config", f"configs/residual_explosion/{stem}.yaml"]
    args += ["--config", str(WITHOUT_DIAGNOSTICS)]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    args += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    assert main(args) == 0
    kind = CLI[stem]
    saved = tmp_path / kind.__name__ / "seed_42" / "checkpoints" / "last.ckpt"
    loaded = kind.load_from_checkpoint(saved)
    state = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    logits = loaded(torch.zeros(2, 1, 8, 8))
    assert logits.shape == (2, 10)


def command(folder, hold, *extra):
    config = "configs/residual_explosion/dfa.yaml"
    words = ["fit", "--config", config, "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "4"]
    words += ["--trainer.enable_progress_bar", "false", "--data.init_args.batch_size", "100"]
    # Checkpoints in mid-epoch: an epoch has 15 steps.
    words += [
        "--trainer.callbacks+",
        "ModelCheckpoint",
        "--trainer.callbacks.every_n_train_steps",
        "7",
        "--trainer.callbacks.save_last",
        "true",
        "--trainer.callbacks.save_top_k",
        "0",
        "--trainer.callbacks+",
        "tests.cli.sweep.callbacks.Held",
        "--trainer.callbacks.hold",
        str(hold),
        "--trainer.callbacks.epoch",
        "2",
        "--trainer.callbacks.batch",
        "10",
    ]
    return [*words, *extra]


def test_a_run_killed_in_mid_epoch_resumes_bit_exactly(tmp_path):
    hold = tmp_path / "hold"
    assert main(command(tmp_path / "whole", hold)) == 0
    killed = tmp_path / "killed"
    hold.touch()
    process = start_module("lit_credit", *command(killed, hold))
    wait_until((tmp_path / "held").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    history = killed / "DFA" / "seed_42" / "residual_norms.jsonl"
    assert [row["epoch"] for row in read_history(history)] == [0, 1, 2]

    hold.unlink()
    assert main(command(killed, hold, "--ckpt_path", "last")) == 0
    runs = [tmp_path / name / "DFA" / "seed_42" for name in ("whole", "killed")]
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in runs
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    for stem in ("residual_norms", "gradient_norms", "credit_alignment", "metrics"):
        rows = [read_history(run / f"{stem}.jsonl") for run in runs]
        assert [row["epoch"] for row in rows[1]] == list(range(5))
        assert json.dumps(rows[0]) == json.dumps(rows[1])


def test_a_folder_with_a_run_is_refused_and_named(tmp_path, capsys):
    args = ["fit", "--config", "configs/residual_explosion/bp.yaml", "--trainer.max_epochs", "1"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    args += ["--trainer.enable_progress_bar", "false"]
    assert main(args) == 0
    history = tmp_path / "BP" / "seed_42" / "residual_norms.jsonl"
    before = history.read_bytes()
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "holds a run already" in error
    assert "--ckpt_path last" in error
    assert history.read_bytes() == before


def test_loading_a_checkpoint_leaves_the_random_state_alone(tmp_path):
    rule = seeded(lambda: make(BP))
    fit(rule, tmp_path, stop=3, every=3)
    state = torch.get_rng_state()
    net = Dropping(20, width=12, num_classes=5, depth=2)
    before_net = torch.get_rng_state()
    BP.load_from_checkpoint(
        tmp_path / "checkpoints" / "step=3.ckpt", net=net, task=Classification(5)
    )
    assert not torch.equal(state, before_net)
    assert torch.equal(torch.get_rng_state(), before_net)
    assert images()[0].shape == (96, 20)
