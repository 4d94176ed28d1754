"""Run folders as training leaves them, with made-up but realistic numbers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lit_credit.runs.history import History

# rule: |h_L| at the end, |g_L| at the end, cosine at the end, accuracy (that of the digits).
ENDS = {
    "BP": (20.0, 1e-3, 1.0, 0.989),
    "FA": (900.0, 4e-5, 0.31, 0.93),
    "BlockFA": (3e3, 1e-5, 0.24, 0.90),
    "DFA": (1.9e5, 3.4e-7, 0.18, 0.814),
    "FrozenUnits": (9.9, 2e-3, math.nan, 0.86),
}
LAYERS = 5


def config(rule: str, seed: int, epochs: int = 100, **net: Any) -> dict[str, Any]:
    init_args = {"net": {"class_path": "lit_credit.models.ResidualMLP", "init_args": net}}
    return {
        "seed_everything": seed,
        "trainer": {"max_epochs": epochs, "default_root_dir": f"runs/{rule}/{seed}"},
        "model": {"class_path": f"lit_credit.rules.{rule}", "init_args": init_args},
        "data": {"class_path": "lit_credit.datamodules.Digits", "init_args": {"seed": seed}},
    }


def write_run(
    folder: Path, rule: str, seed: int, epochs: int = 100, until: int | None = None, **net: Any
) -> Path:
    """Write a run of ``epochs`` epochs, killed after ``until`` of them."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(rule, seed, epochs, **net)))
    names = ["residual_norms", "gradient_norms", "credit_alignment", "metrics"]
    if rule == "FrozenUnits":
        names.remove("credit_alignment")
    files = {name: History(folder / f"{name}.jsonl") for name in names}
    rng = np.random.default_rng([seed, *rule.encode()])
    level = 1 + 0.1 * rng.standard_normal()
    for epoch in range((epochs if until is None else until) + 1):
        values = _values(rule, epoch / max(epochs, 1), level, rng)
        for name, file in files.items():
            file.append(12 * epoch, epoch, name, values[name])
    return folder


def _values(rule: str, t: float, level: float, rng: np.random.Generator) -> dict[str, Any]:
    h, g, cosine, accuracy = ENDS[rule]
    risen = 1 - math.exp(-6 * t)
    wobble = 1 + 0.02 * rng.standard_normal(LAYERS)
    depth = np.linspace(0.35, 1, LAYERS)
    stream = 9.5 * (h / 9.5) ** (risen * depth * level) * wobble
    gradient = 2.7e-3 * (g / 2.7e-3) ** (risen * level) * wobble * np.linspace(1.6, 1, LAYERS)
    credit = [cosine if rule == "BP" else cosine * risen * s * level for s in (2, 1, 0.6, 0.4)]
    learnt = 0.1 + (accuracy - 0.1) * (1 - math.exp(-18 * t)) + 0.008 * rng.standard_normal()
    return {
        "residual_norms": {f"residual/norm/L{i:02}": float(x) for i, x in enumerate(stream)},
        "gradient_norms": {f"gradient/norm/L{i:02}": float(x) for i, x in enumerate(gradient)},
        "credit_alignment": {f"credit/cosine/L{i:02}": x for i, x in enumerate(credit)},
        "metrics": {"val/accuracy": min(learnt, 1.0), "val/loss": 2.3 * (1 - t) + 0.1},
    }
