"""A series of checkpoints: going on in a folder, what is refused, and what a checkpoint costs."""

from collections import Counter

import pytest
import torch

from lit_credit.callbacks import AttentionMaps, ResidualNorms
from lit_credit.diagnosis import diagnose
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from tests import support
from tests.support import NoisyNet

UNITS = ["embed", "blocks.*"]


def weights(step):
    torch.manual_seed(step)
    return NoisyNet().state_dict()


def saved(folder, steps, make=weights):
    folder.mkdir(exist_ok=True)
    for step in steps:
        torch.save(make(step), folder / f"weights_{step}.pt")
    return folder


class Counted(ResidualNorms):
    """Counts what is called."""

    def __init__(self, stop=None, **kwargs):
        super().__init__(n_samples=6, units=UNITS, **kwargs)
        self.count, self.stop = Counter(), stop

    def prepare(self, *args):
        self.count["prepare"] += 1
        super().prepare(*args)

    def begin(self, *args):
        self.count["probe"] += 1
        super().begin(*args)

    def prove(self, chunk):
        self.count["proof"] += 1
        return super().prove(chunk)

    def compute(self):
        self.count["measured"] += 1
        if self.count["measured"] == self.stop:
            raise KeyboardInterrupt
        return super().compute()


def run(checkpoints, out=None, diagnostics=None, net=NoisyNet, **kwargs):
    diagnostics = Counted() if diagnostics is None else diagnostics
    return diagnose(
        net(), diagnostics, support.val_loader(), checkpoints=checkpoints, out=out, **kwargs
    )


def lines(folder):
    return (folder / "residual_norms.jsonl").read_bytes()


def points(folder):
    """The points of each tag in TensorBoard's files, in the order in which they were written.

    Files of one second end in a counter, and TensorBoard itself reads 10 before 9.
    """
    found = {}
    for file in sorted(folder.glob("events.*"), key=lambda path: int(path.suffix[1:])):
        board = support.events(file)
        for tag in board.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, e.value) for e in board.Scalars(tag))
    return found


def test_nothing_is_built_again_for_each_checkpoint():
    counted = Counted()
    found = run(((step, weights(step)) for step in range(5)), diagnostics=counted)
    assert len(found["residual_norms"].rows) == 5
    assert counted.count == {"prepare": 1, "probe": 1, "proof": 1, "measured": 5}


def test_a_series_that_was_stopped_goes_on(tmp_path):
    series = saved(tmp_path / "weights", range(6))
    run(series, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(series, tmp_path / "cut", Counted(stop=4))
    assert len(read_history(tmp_path / "cut" / "residual_norms.jsonl")) == 3
    rest, again = Counted(), Counted()
    found = run(series, tmp_path / "cut", rest)
    assert rest.count["measured"] == 3
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [row["step"] for row in found["residual_norms"].rows] == list(range(6))
    # Nothing is left to measure but what figures show of the last step, which is not written.
    found = run(series, tmp_path / "cut", again)
    assert again.count["measured"] == 1
    assert list(found.figures) == ["residual_norms"]
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    # Every value is one point in TensorBoard.
    rows = read_history(tmp_path / "cut" / "residual_norms.jsonl")
    for tag, found_points in points(tmp_path / "cut").items():
        assert found_points == [(r["step"], pytest.approx(r["values"][tag])) for r in rows]
    assert points(tmp_path / "cut").keys() == rows[0]["values"].keys()


def test_checkpoints_and_diagnostics_can_be_added(tmp_path):
    series = saved(tmp_path / "weights", range(3))
    run(series, tmp_path / "out")
    saved(series, range(5))
    first, other = Counted(), AttentionMaps(n_samples=6)
    found = run(series, tmp_path / "out", [first, other])
    assert first.count["measured"] == 2
    assert {name: len(finding.rows) for name, finding in found.items()} == {
        "residual_norms": 5,
        "attention_maps": 5,
    }
    run(series, tmp_path / "whole", [Counted(), AttentionMaps(n_samples=6)])
    for stem in found:
        one, whole = (read_history(tmp_path / f / f"{stem}.jsonl") for f in ("out", "whole"))
        assert one == whole


def changed_arguments(series, out):
    run(series, out, ResidualNorms(n_samples=5, units=UNITS))


def earlier_steps(series, out):
    run(saved(series, [1]), out)


def another_file(series, out):
    (series / "weights_2.pt").rename(series / "other_2.pt")
    run(series, out)


def without_notes(series, out):
    (out / "diagnosis.json").unlink()
    run(series, out)


def written_again(series, out):
    saved(series, [2], lambda step: weights(7))
    run(series, out)


def other_data(series, out):
    diagnose(NoisyNet(), Counted(), support.tensors(8)[:1], checkpoints=series, out=out)


REFUSED = {
    written_again: "rows of step 2 are of weights/weights_2.pt.*, and now weights/weights_2.pt",
    other_data: "measured on other data",
    changed_arguments: "measured with .*'n_samples': 6.*'n_samples': 5",
    earlier_steps: "up to step 4, and checkpoints of earlier steps were added: 1",
    another_file: "rows of step 2 are of weights/weights_2.pt.*weights/other_2.pt",
    without_notes: "was not written by a diagnosis",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_another_diagnosis_left_is_refused_and_kept(change, tmp_path):
    series = saved(tmp_path / "weights", [0, 2, 4])
    run(series, tmp_path / "out")
    before = lines(tmp_path / "out")
    with pytest.raises(ValueError, match=f"holds another diagnosis.*{REFUSED[change]}"):
        change(series, tmp_path / "out")
    assert lines(tmp_path / "out") == before


def test_equal_neighbours_are_told_once(tmp_path):
    series = saved(tmp_path / "weights", range(4), lambda step: weights(0))
    with pytest.warns(UserWarning, match="weights_1.pt holds the same weights") as told:
        run(series)
    assert len([one for one in told if "same weights" in str(one.message)]) == 1


def test_weights_without_feedback_are_told():
    series = [(1, support.rule(BP).state_dict())]
    module = support.rule(DFA)
    module.credit(support.tensors(6))  # draws the feedback
    with pytest.warns(UserWarning, match="no fixed feedback .*feedback.matrix"):
        diagnose(module, Counted(), support.val_loader(), checkpoints=series)


def test_a_broken_file_in_the_middle_is_named_before_any_work(tmp_path):
    series = saved(tmp_path / "weights", range(3))
    (series / "weights_1.pt").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"weights_1\.pt"):
        run(series, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_weights_of_one_step_are_refused(tmp_path):
    key, held, memory = (tmp_path / name for name in ("key", "held", "memory"))
    torch.save({"model": weights(1), "ema": weights(2)}, tmp_path / "both_5.pt")
    run(tmp_path / "both_5.pt", key, key="model")
    with pytest.raises(ValueError, match=r"key 'model'.*key 'ema'"):
        run(tmp_path / "both_5.pt", key, key="ema")
    run([(1, weights(1))], held)
    run([(1, weights(1))], held)
    with pytest.raises(ValueError, match="step 1 are of a state_dict"):
        run([(1, weights(2))], held)
    run(None, memory)
    with pytest.raises(ValueError, match="a model in memory"):
        run([(0, weights(1))], memory)


def test_going_on_does_not_compare_with_the_model_in_memory(tmp_path, recwarn):
    net = NoisyNet()
    net.load_state_dict(weights(1))
    run([(0, weights(0))], tmp_path / "out")
    found = run([(0, weights(0)), (1, weights(1))], tmp_path / "out", net=lambda: net)
    assert not [one for one in recwarn if "same weights" in str(one.message)]
    assert found["residual_norms"].folder == tmp_path / "out"
    assert run([(0, weights(0))])["residual_norms"].folder is None
