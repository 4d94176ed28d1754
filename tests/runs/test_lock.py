"""One process at a time, whatever becomes of the one before."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from lit_credit.runs import lock
from lit_credit.runs.lock import hold

HOLDER = """
import sys
from pathlib import Path
from lit_credit.runs.lock import hold
with hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def start(path):
    """A process that holds the file until it is told to end."""
    words = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "deep" / "run.lock"


def test_a_second_process_is_refused_by_name_until_the_first_has_ended(path):
    with start(path) as process:
        who = f"the table is in use by process {process.pid} of host {socket.gethostname()} since "
        for _ in range(2):
            with pytest.raises(ValueError, match=who), hold(path, "the table"):
                pass
        assert json.loads(path.read_text())["pid"] == process.pid
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
        assert not path.parent.parent.exists()
        with hold(path, "the table"):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not path.parent.parent.exists()


def test_a_killed_process_locks_nobody_out(path):
    with start(path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""  # ended, but not waited for: its number is still taken
        os.kill(process.pid, 0)
        with hold(path, "it"):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_process_of_another_host_may_live(path):
    path.parent.mkdir(parents=True)
    text = json.dumps({"pid": 7, "host": "elsewhere", "since": "2026-11-28 10:00:00"})
    path.write_text(text)
    message = f"process 7 of host elsewhere.* without removing '{path}', remove that file"
    with pytest.raises(ValueError, match=message), hold(path, "it"):
        pass
    assert path.read_text() == text
    path.unlink()
    with hold(path, "it"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_a_file_that_names_nobody_is_taken_if_nobody_has_it(text, path):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with hold(path, "it"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_process_is_in_its_own_way_too(path):
    with hold(path, "it"):
        for spelled in (path, path.parent / ".." / "deep" / path.name):
            with pytest.raises(ValueError, match="by this process already"), hold(spelled, "it"):
                pass
        assert start_fails(path)


def start_fails(path):
    words = [sys.executable, "-c", HOLDER, str(path)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True).returncode == 1


def test_files_beside_it_stay(path):
    with hold(path, "it"):
        (path.parent / "config.yaml").touch()
    assert [found.name for found in path.parent.iterdir()] == ["config.yaml"]


def test_an_error_inside_gives_it_up(path):
    with pytest.raises(KeyboardInterrupt), hold(path, "it"):
        raise KeyboardInterrupt
    assert not path.parent.parent.exists()


def test_patience_lasts_until_the_other_has_ended(path):
    with start(path) as process:
        process.stdin.write("\n")
        process.stdin.flush()
        with hold(path, "it", patience=600):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def test_only_one_of_many_gets_a_file_that_a_killed_process_left(path):
    with start(path) as process:
        process.kill()
        process.wait()
        words = [sys.executable, "-c", HOLDER, str(path)]
        pipe = subprocess.PIPE
        many = [
            subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            for _ in range(6)
        ]
        # Those that are refused end by themselves; the one that holds it waits to be told.
        firsts = [other.stdout.readline() for other in many]
        assert sorted(firsts) == [""] * 5 + ["held\n"]
        for other in many:
            with other:
                pass


def no_locks(*_):
    raise OSError(lock.errno.ENOLCK, "No locks available")


def test_where_the_file_system_has_no_locks_the_number_of_the_process_counts(path, monkeypatch):
    with start(path) as process:
        monkeypatch.setattr(lock.fcntl, "lockf", no_locks)
        with pytest.raises(ValueError, match=f"process {process.pid}"), hold(path, "it"):
            pass
        process.kill()
        process.wait()
        with hold(path, "it"):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not path.exists()
