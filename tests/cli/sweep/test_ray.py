"""A sweep on a cluster of one machine."""

import os

import pytest

from tests.cli.sweep.test_sweep import Sweep, interrupted
from tests.support.processes import gone, wait_until

GRID = """
seed_everything: [7]
cases:
  - {name: exact, model.class_path: BP}
  - {name: killed, trainer.callbacks+: tests.cli.sweep.callbacks.Killed}
"""


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_runs_what_this_machine_would(cluster, tmp_path, capfd):
    here, there = tmp_path / "here", tmp_path / "there"
    codes = []
    for folder, words in ((here, []), (there, ["--executor=ray"])):
        folder.mkdir()
        sweep = Sweep(folder, GRID)
        codes.append(sweep(*words))
        printed = capfd.readouterr().out
        assert "[2/2]" in printed
        assert "killed by signal 9" in printed
    assert codes == [1, 1]
    rows = [Sweep.rows(Sweep(folder, GRID)) for folder in (here, there)]
    for row in (row for table in rows for row in table):
        for measured in ("seconds", "cpu_seconds", "peak_memory"):
            assert bool(row.pop(measured)) == (row["status"] == "finished")
        row.pop("folder")
    assert rows[0] == rows[1]
    assert [row["status"] for row in rows[1]] == ["finished", "failed"]


@pytest.mark.slow
def test_ctrl_c_ends_the_runs_of_a_cluster(cluster, tmp_path):
    sweep, pid = interrupted(tmp_path, "--executor=ray")
    wait_until(lambda: gone(pid))
    assert [len(file.splitlines()) for file in sweep.files("metrics.jsonl").values()] == [3]
