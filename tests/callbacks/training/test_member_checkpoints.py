"""The members of an ensemble as checkpoints of the one net."""

import pytest
import torch

from lit_credit.callbacks import MemberCheckpoints
from lit_credit.cli import main
from lit_credit.models import Ensemble
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from lit_credit.tasks import EachMember
from tests.callbacks.training import ensemble_worker
from tests.support import quiet_trainer
from tests.support.processes import run_module

SMALL = ["--data.init_args.steps_per_epoch", "10", "--data.init_args.val_size", "200"]
SMALL += ["--data.init_args.val_chains", "2", "--data.init_args.test_size", "200"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensemble")
    words = ["fit", "--config", "configs/addition/67p_ensemble.yaml", *SMALL]
    words += ["--trainer.max_epochs", "2", "--trainer.default_root_dir", str(root)]
    words += ["--trainer.log_every_n_steps", "1"]
    words += ["--trainer.callbacks+=MemberCheckpoints", "--trainer.callbacks.every_n_epochs", "1"]
    assert main(words) == 0
    return root / "BP" / "seed_42"


def test_a_member_loads_as_the_one_net(run):
    whole = BP.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    for index in (0, 7):
        path = run / "members" / f"M{index:02d}_seed{42 + index}.ckpt"
        rule = BP.load_from_checkpoint(path)
        assert type(rule.net) is MicroAdder
        assert type(rule.task) is AdditionTask
        for name, value in whole.net.member_state(index).items():
            assert torch.equal(rule.net.state_dict()[name], value)
    assert not (run / "members" / "all.ckpt").exists()


def test_a_member_is_tested_from_the_command_line_with_the_configuration_of_the_one_net(
    run, capsys
):
    path = run / "members" / "M03_seed45.ckpt"
    words = ["test", "--config", "configs/addition/67p.yaml", *SMALL, "--ckpt_path", str(path)]
    assert main([*words, "--trainer.default_root_dir", str(run / "tested")]) == 0
    assert "test/token_accuracy" in capsys.readouterr().out


def test_members_are_written_along_the_way(run):
    names = {path.name for path in (run / "members").iterdir()}
    ends = ["", "_step10", "_step20"]
    assert names == {f"M{i:02d}_seed{42 + i}{end}.ckpt" for i in range(8) for end in ends}
    early, late = (
        BP.load_from_checkpoint(run / "members" / f"M00_seed42_step{n}.ckpt") for n in (10, 20)
    )
    assert not torch.equal(early.net.head.weight, late.net.head.weight)
    end = BP.load_from_checkpoint(run / "members" / "M00_seed42.ckpt")
    assert torch.equal(end.net.head.weight, late.net.head.weight)


def test_metrics_have_a_name_for_each_member(run):
    rows = read_history(run / "metrics.jsonl")
    keys = set(rows[-1]["values"])
    names = {f"val/{n}/M{i:02d}" for n in ("exact", "token_accuracy", "chains") for i in range(8)}
    assert names <= keys


def test_of_an_ensemble_built_in_python(tmp_path):
    net = Ensemble(lambda: MicroAdder(digits=2), members=2, first_seed=3)
    rule = BP(net, EachMember(AdditionTask(2), 2))
    data = Addition(2, 8, 2, val_size=9, val_chains=2, seed=0)
    trainer = quiet_trainer(
        max_epochs=1, default_root_dir=tmp_path, callbacks=[MemberCheckpoints()]
    )
    trainer.fit(rule, datamodule=data)
    path = tmp_path / "members" / "M01_seed4.ckpt"
    found = BP.load_from_checkpoint(path, net=MicroAdder(digits=2), task=AdditionTask(2))
    assert torch.equal(found.net.head.weight, net.stacked.head.weight[1])


@pytest.mark.few(1)
@pytest.mark.parametrize("devices", [1, 2])
def test_members_and_a_series_are_written_once_by_all_processes_into_a_folder_that_is_new(
    tmp_path, devices
):
    folder = tmp_path / "not" / "yet"
    if devices == 1:
        ensemble_worker.train(1, str(folder))
    else:
        run_module("tests.callbacks.training.ensemble_worker", devices, folder)
    found = sorted(path.name for path in (folder / "members").iterdir())
    assert found == ["M00_seed3.ckpt", "M01_seed4.ckpt"]
    series = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert series == ["step=00000000.ckpt", "step=00000001.ckpt", "step=00000002.ckpt"]
    states = [torch.load(folder / "checkpoints" / name)["state_dict"] for name in series]
    member = torch.load(folder / "members" / found[1])["state_dict"]
    assert torch.equal(states[-1]["net.stacked.head.weight"][1], member["net.head.weight"])
    assert not torch.equal(
        states[-1]["net.stacked.head.weight"], states[1]["net.stacked.head.weight"]
    )


def test_a_net_without_members_and_a_wrong_number_are_refused():
    with pytest.raises(ValueError, match="`every_n_epochs` is 0"):
        MemberCheckpoints(every_n_epochs=0)
    rule = BP(MicroAdder(digits=2), AdditionTask(2))
    trainer = quiet_trainer(max_epochs=1, callbacks=[MemberCheckpoints()])
    with pytest.raises(ValueError, match="`net` is MicroAdder, which has no"):
        trainer.fit(rule, datamodule=Addition(2))
