"""What a release consists of: the files about the project agree with it and with each other."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import lit_credit
from tools import release_check

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yml"))
FORMS = sorted(Path(".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(Path("CITATION.cff").read_text())
    assert citation["version"] == lit_credit.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def made(job):
    """The words after ``make`` in the steps of a job, for every row of its matrix."""
    rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
    for run in (step.get("run", "") for step in job["steps"]):
        for row in rows:
            words = run.replace("${{ matrix.targets }}", row.get("targets", "")).split()
            yield from words[1:] if words[:1] == ["make"] else ()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=str)
def test_a_workflow_makes_targets_that_exist(workflow):
    targets = set(re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE))
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    named = {word for job in jobs.values() for word in made(job)}
    named = {word for word in named if re.fullmatch(r"[a-z][a-z-]+", word)}
    assert named
    assert named <= targets


def test_ci_makes_what_must_pass_before_a_change_lands():
    needed = re.search(r"^make (.+)$", Path(".ci/run").read_text(), re.MULTILINE)[1].split()
    rows = yaml.safe_load(Path(".github/workflows/ci.yml").read_text())["jobs"]["check"]
    targets = [row["targets"].split() for row in rows["strategy"]["matrix"]["include"]]
    assert needed in targets


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_form_has_fields_with_names_of_their_own(form):
    body = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= body.keys()
    ids = [field["id"] for field in body["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in body["body"])
    assert {field["type"] for field in body["body"]} <= {"textarea", "input", "dropdown"}


def refused(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["release_check.py", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        release_check.main()
    return str(stop.value)


def test_a_release_has_one_wheel_of_its_tag(tmp_path, monkeypatch):
    assert "0 wheels" in refused(monkeypatch, tmp_path)
    (tmp_path / "lit_credit-0.1.0-py3-none-any.whl").touch()
    assert "version 0.1.0" in refused(monkeypatch, tmp_path, "--tag", "v0.2.0")
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text("# Changelog\n\n## [Unreleased]\n")
    monkeypatch.setattr(release_check, "CHANGELOG", changes)
    assert "no heading `## [0.1.0]`" in refused(monkeypatch, tmp_path, "--tag", "v0.1.0")
    changes.write_text("# Changelog\n\n## [0.1.0] - 2026-12-01\n")
    release_check.check_tag("v0.1.0", "0.1.0")


def test_a_command_that_fails_ends_the_check(tmp_path):
    with pytest.raises(SystemExit) as stop:
        release_check.run([sys.executable, "-c", "print('why'); raise SystemExit(3)"], tmp_path)
    assert "why" in str(stop.value)
    assert "exit code 3" in str(stop.value)


def test_commands_of_the_check_do_not_see_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    code = "import os; print(os.environ.get('PYTHONPATH'))"
    assert release_check.run([sys.executable, "-c", code], tmp_path) == "None\n"
