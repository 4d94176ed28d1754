"""The recipes of CONTRIBUTING.md, inside of lit_credit and in a package of one's own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = Path("CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
INSIDE = {
    "rules.py": "rules/shuffled_dfa.py",
    "diagnostics.py": "callbacks/representations/zero_activations.py",
    "parity/data.py": "studies/parity/data.py",
    "parity/__init__.py": "studies/parity/__init__.py",
}
NAMES = {"ShuffledDFA": "rules", "ZeroActivations": "diagnostics", "Parity": "parity"}


def write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def export(package, module, name):
    """Add a name to a package's ``__init__.py``, as the recipe asks for."""
    path = package / "__init__.py"
    text = path.read_text().replace("__all__ = [", f'__all__ = [\n    "{name}",', 1)
    path.write_text(f"{text}\nfrom {module} import {name}\n")


@pytest.fixture
def inside(tmp_path):
    """A copy of lit_credit with the files in their places, and the configuration."""
    package = tmp_path / "lit_credit"
    shutil.copytree("lit_credit", package, ignore=shutil.ignore_patterns("__pycache__"))
    write(package, {place: FILES[name] for name, place in INSIDE.items()})
    export(package / "rules", "lit_credit.rules.shuffled_dfa", "ShuffledDFA")
    module = "lit_credit.callbacks.representations.zero_activations"
    export(package / "callbacks", module, "ZeroActivations")
    write(tmp_path, {"parity.yaml": FILES["parity.yaml"]})
    return tmp_path


@pytest.fixture
def own_package(tmp_path):
    """A package beside the configuration, which names classes by their import paths."""
    write(tmp_path / "my_lab", {"__init__.py": "", **FILES})
    text = FILES["parity.yaml"]
    for name, module in NAMES.items():
        text = text.replace(f"class_path: {name}", f"class_path: my_lab.{module}.{name}")
    write(tmp_path, {"parity.yaml": text})
    return tmp_path


@pytest.mark.few(1)
@pytest.mark.parametrize("place", ["inside", "own_package"])
def test_the_recipes_train(place, request):
    folder = request.getfixturevalue(place)
    command = [sys.executable, "-m", "lit_credit", "fit", "--config", "parity.yaml"]
    path = str(folder) if place == "inside" else f"{folder}:{Path.cwd()}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (folder / "runs" / "parity" / "ShuffledDFA").iterdir()
    assert (run / "zero_activations.jsonl").read_text().count("activation/zero/L01") >= 2
    config = yaml.safe_load((run / "config.yaml").read_text())
    start = "lit_credit" if place == "inside" else "my_lab"
    assert config["model"]["class_path"].startswith(start)
    assert config["data"]["class_path"].startswith(start)
