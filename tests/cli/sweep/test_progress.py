"""What a sweep prints and writes while it is under way."""

import json
import subprocess
import sys

import pytest

from lit_credit.cli.sweep import progress, table
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import Point
from lit_credit.cli.sweep.plan import planned
from lit_credit.cli.sweep.progress import Progress
from lit_credit.cli.sweep.table import SweepTable
from tests.cli.sweep.test_sweep import BASE


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def cells(folder, n):
    return [
        Cell(f"c{i}", Point(f"c{i}", None, {}), i, folder / f"c{i}", [], "", folder)
        for i in range(n)
    ]


def finish(cell, **values):
    cell.folder.mkdir(parents=True, exist_ok=True)
    cell.finish({"seconds": 1.0, "epoch": 1, "step": 2, "values": values})


def test_planning_is_counted_once_it_takes_a_while(clock, capsys):
    says = Progress()
    for done, second in enumerate((100, 101, 102, 103, 107)):
        clock[0] = float(second)
        says.planning(done, 5)
    clock[0] = 110.0
    says.planned(10, 3, 2)
    assert capsys.readouterr().out.splitlines() == [
        "Planning: 2 of 5 points.",
        "Planning: 4 of 5 points.",
        "10 runs planned in 10 s, 3 of them finished before, 2 at a time.",
    ]


def test_the_time_left_is_that_of_the_runs_so_far(clock, capsys, tmp_path):
    says = Progress()
    says.planned(10, 4, 2)
    (cell,) = cells(tmp_path, 1)
    result = {"seconds": 1.0, "values": {"val/loss": 0.5}}
    for number, second, left in ((5, 160, "5 min left"), (9, 150, "10 s left"), (10, 151, "")):
        clock[0] = float(second)
        says.ended(number, cell, result, "")
        expected = f"[{number}/10{left and f', {left}'}] c0: 1.0 s, val/loss 0.5"
        assert capsys.readouterr().out.splitlines()[-1] == expected


def test_the_table_grows_as_runs_end_and_is_never_half_written(tmp_path, monkeypatch):
    some = cells(tmp_path, 3)
    finish(some[0], a=0.5)
    found = SweepTable(tmp_path / "t.csv", some)
    assert [cell.name for cell in found.todo] == ["c1", "c2"]
    finish(some[1], b=0.25)
    assert found.ended(some[1])["values"] == {"b": 0.25}
    assert [row["status"] for row in found.rows()] == ["finished", "finished", "unfinished"]
    written = (tmp_path / "t.csv").read_text()
    assert written.splitlines()[0].endswith("folder,a,b")

    class Full(type(tmp_path)):
        """A path on a disk that fills up half way."""

        def write_bytes(self, data):
            super().write_bytes(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(found, "path", Full(tmp_path / "t.csv"))
    with pytest.raises(OSError, match="No space left"):
        found.write()
    assert (tmp_path / "t.csv").read_text() == written
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "c0", "c1"}


def test_a_large_table_is_not_written_after_every_run(tmp_path, monkeypatch):
    some = cells(tmp_path, 4)
    writes = []
    now = [0.0]
    monkeypatch.setattr(table.time, "monotonic", lambda: now[0])

    def write(path, rows):
        writes.append(now[0])
        now[0] += 1.0  # a second each

    monkeypatch.setattr(table, "write_rows", write)
    found = SweepTable(tmp_path / "t.csv", some)
    for second, cell in zip((0.0, 5.0, 20.0, 22.0), some, strict=True):
        now[0] = second
        finish(cell)
        found.ended(cell)
    assert writes == [0.0, 22.0]  # a twentieth of the time


COSTLY = """
import json, time
from lit_credit.cli.sweep.cost import Cost

start, cost = time.process_time(), Cost()
held = bytearray(64_000_000)
for i in range(0, len(held), 4096):
    held[i] = 1
del held  # the peak counts
while time.process_time() - start < 0.4:
    pass
print(json.dumps(cost.measured()))
"""


def test_a_cost_counts_cpu_time_and_private_memory():
    """In a process of its own: the peak of this one may lie behind."""
    done = subprocess.run([sys.executable, "-c", COSTLY], check=True, capture_output=True)
    found = json.loads(done.stdout)
    assert 0.38 <= found["cpu_seconds"] < 1
    assert 63e6 < found["peak_memory"] < 70e6


def test_what_varies_is_what_points_differ_in(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    lr = "model.init_args.optimizer.init_args.lr"
    points = [
        Point("a", None, {"trainer.max_epochs": 2, lr: 0.1}),
        Point("b", None, {"trainer.max_epochs": 2, lr: 0.2, "model.class_path": "DFA"}),
    ]
    found = planned(points, [1], [f"--config={tmp_path / 'base.yaml'}"], tmp_path / "out")
    assert [set(cell.varied) for cell in found] == [{lr, "model.class_path"}] * 2
