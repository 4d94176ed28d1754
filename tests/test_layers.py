"""Who may import whom."""

import ast
import subprocess
import sys
from importlib import import_module

import pytest

from tests.imports import imports, modules, room

EVERYWHERE = {"protocols", "former_names", "headlines"}

# A room imports itself, what stands in its line, and what is allowed everywhere.
ALLOWED = {
    "functional": "",
    "utils": "functional",
    "inspect": "functional utils",
    "runs": "functional utils",
    "trainer": "functional utils runs",
    "plotting": "functional utils runs",
    "feedback": "functional utils inspect",
    "models": "functional utils inspect",
    "tasks": "functional utils inspect",
    "datamodules": "functional utils inspect",
    "rules": "functional utils inspect runs trainer feedback tasks",
    "callbacks": "functional utils inspect runs trainer plotting",
    "testing": "functional utils inspect runs trainer callbacks rules tasks datamodules",
    "studies": "functional utils inspect runs trainer plotting callbacks rules tasks datamodules "
    "models feedback",
    "comparison": "functional utils inspect runs trainer plotting callbacks rules tasks studies",
    "diagnosis": "utils inspect runs trainer callbacks",
    "cli": "functional utils inspect runs trainer plotting callbacks rules tasks datamodules "
    "models feedback studies comparison diagnosis",
    # Single modules.
    "optimizers": "",
    "protocols": "",
    "former_names": "former_paths",
    "former_paths": "",
    "headlines": "",
    "__main__": "cli",
    # What a person starts with is offered, and loaded when it is used.
    "lit_credit": "rules diagnosis comparison utils",
}

# Beside the standard library, torch and numpy, which all may import: who imports what.
# `functional`, `feedback` and `models` stand nowhere here: they load with torch alone.
THIRD_PARTIES = {
    "lightning": "utils inspect runs trainer datamodules rules callbacks testing studies "
    "diagnosis cli",
    "lightning_utilities": "utils diagnosis",
    "pytorch_lightning": "utils",
    "torchmetrics": "tasks rules callbacks studies",
    "matplotlib": "protocols runs trainer plotting callbacks studies diagnosis comparison cli",
    "tqdm": "diagnosis",
    "yaml": "runs rules cli",
    "jsonargparse": "cli",
    "typing_extensions": "rules",
    "torchvision": "datamodules",
    "sklearn": "datamodules",
    "tensorboard": "trainer",
    "ray": "cli",
    "pyarrow": "cli",
    "safetensors": "runs",
    "scipy": "comparison",
}
FREE = {*sys.stdlib_module_names, "torch", "numpy"}
# Slow to load, or an extra: by no import that a module makes when it loads.
LATE = {"torchvision", "sklearn", "tensorboard", "scipy", "ray", "pyarrow", "transformers"}
LATE |= {"safetensors"}


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_its_line_names(module):
    own = room(module)
    allowed = {own, *ALLOWED[own].split(), *({"lit_credit", *EVERYWHERE} - {own})}
    if own in EVERYWHERE:  # which import nothing of ours but tables
        allowed = {own, *ALLOWED.get(own, "").split()}
    assert {room(i.name) for i in imports(module) if _is_ours(i.name)} <= allowed


@pytest.mark.parametrize("module", modules())
def test_third_parties_are_imported_where_the_table_says(module):
    for arrow in imports(module):
        package = arrow.name.split(".")[0]
        if not _is_ours(arrow.name) and package not in FREE:
            assert room(module) in THIRD_PARTIES[package].split(), arrow
            assert package not in LATE or arrow.when != "start", arrow


def test_every_row_of_the_tables_is_needed():
    rooms = {room(module) for module in modules()}
    found = {i.name.split(".")[0] for module in modules() for i in imports(module)}
    assert rooms <= set(ALLOWED) <= rooms | {"protocols"}
    assert set(THIRD_PARTIES) == found - FREE - {"lit_credit"}
    users = {
        package: {
            room(module)
            for module in modules()
            if any(i.name.split(".")[0] == package for i in imports(module))
        }
        for package in THIRD_PARTIES
    }
    for package, allowed in THIRD_PARTIES.items():
        assert users[package] == set(allowed.split()), package


def _is_ours(name):
    return name.split(".")[0] == "lit_credit"


# Circles


def arrows(module, whens=("start", "call", "typing")):
    """The modules of lit_credit that are loaded by what ``module`` imports.

    An import within a function counts, unless a comment says why it waits. ``import a.b`` loads
    ``a`` before, which is an arrow too, but for packages that ``module`` itself lies in.
    """
    found = set()
    for arrow in imports(module):
        if arrow.when not in whens or (arrow.when == "call" and arrow.explained):
            continue
        parts = arrow.name.split(".")
        found |= {".".join(parts[: n + 1]) for n in range(len(parts))}
    return {name for name in found & set(modules()) if not f"{module}.".startswith(f"{name}.")}


def circles(edges):
    """Groups of nodes of which each can be reached from each."""
    reached = {node: set(targets) for node, targets in edges.items()}
    for middle in edges:
        for targets in reached.values():
            if middle in targets:
                targets |= reached[middle]
    groups = {
        frozenset(other for other in targets if node in reached[other])
        for node, targets in reached.items()
        if node in targets
    }
    return sorted(map(sorted, groups))


def test_circles_are_found():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}
    assert circles(edges) == [["a", "b", "c"], ["e", "f"]]


def test_no_import_goes_in_a_circle():
    assert circles({module: arrows(module) for module in modules()}) == []


# Without Lightning

ALONE = """
import sys

for name in ("lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics"):
    sys.modules[name] = None  # an import of it fails

import torch
from torch import nn

import lit_credit.functional as F
from lit_credit.feedback import DirectFeedback, add_feedback, exact_backward
from lit_credit.models import GPT, MLP, Ensemble, ResidualMLP, RotaryTransformer

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
net = add_feedback(net, seed=1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(16, 6), torch.randint(3, (16,))
losses = []
for _ in range(5):
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert MLP(6, [8], 3)(x).shape == (16, 3)
assert F.participation_ratio(net[:3](x)) > 1
try:
    add_feedback(nn.Bilinear(2, 2, 2), seed=1)
except ValueError as error:
    print("refused:", type(error).__name__)
assert not [n for n, m in sys.modules.items() if m and n.split(".")[0] == "lightning"]
"""


def test_nets_and_feedback_work_without_lightning():
    command = [sys.executable, "-W", "error", "-c", ALONE]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "refused: ValueError\n"


# Names


def test_only_utils_touches_private_attributes_of_lightning():
    for module, path in modules().items():
        assert room(module) in ("utils", "trainer") or "trainer._" not in path.read_text(), path


@pytest.mark.parametrize("module", modules())
def test_every_package_says_what_it_is(module):
    path = modules()[module]
    if path.name == "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text()))


LATE_PACKAGES = [
    "lit_credit",
    "lit_credit.comparison",
    "lit_credit.runs",
    "lit_credit.inspect",
    "lit_credit.inspect.attention",
]


@pytest.mark.parametrize("name", LATE_PACKAGES)
def test_a_package_that_loads_late_offers_what_it_names(name):
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        found = getattr(package, public)
        if public != "__version__":
            assert found.__name__ == public
            assert found.__module__.startswith(f"{name}.")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_start_names_load_nothing():
    code = (
        "import sys, lit_credit, lit_credit.cli, lit_credit.runs, lit_credit.inspect.attention\n"
        "print([n for n in ('lightning', 'torchmetrics', 'matplotlib') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
