r"""What a measurement of each diagnostic costs, in training steps: time, and peak memory.

    python benchmarks/instrument.py
    python benchmarks/instrument.py --nets gpt2 --names HeadAttribution SoftmaxJacobian

Each pair of a net and a diagnostic at its defaults is a fit of few steps in a process of its own,
with one thread and with a limit of memory, so that a blow-up fails alone. Time is CPU time of the
process. Memory is the high-water mark of what is resident, above the bare interpreter's: of a
training step with AdamW, and of a measurement between two steps, beside weights, gradients and the
optimizer's state. `first` is the measurement before training, with its proof.

Nets: `residual`, the residual study's (batch 128); `gpt`, ours (batch 32, T 64); `gpt2`, Hugging
Face's GPT-2 of 124M parameters in a foreign LightningModule (batch 4, T 256, V 50257); `gpt_124m`,
ours in that size. All but `gpt2` train under FA, so that what needs a rule applies.
"""

import argparse
import inspect
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_credit import callbacks
from lit_credit.datamodules import TensorLoader
from lit_credit.models import GPT, ResidualMLP
from lit_credit.rules import FA
from lit_credit.tasks import Classification, NextToken

GB = 1 << 30
NEED_UNITS = (
    "CreditAlignment",
    "CreditFunction",
    "GradientNorms",
    "LayerProbes",
    "ReferenceValidity",
    "Representations",
    "ResidualNorms",
    "SignalRank",
)
"""Of a foreign net, which does not declare them."""


class Setting(NamedTuple):
    """A net in its module, and how a batch of it looks."""

    module: Callable[[], LightningModule]
    batch: int
    shape: tuple[int, ...]
    symbols: int
    units: list[str] | None = None


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


class GPT2(LightningModule):
    """Hugging Face's GPT-2 with random weights, as a project that knows nothing of us has it."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config(n_positions=256))

    def forward(self, tokens: Tensor) -> Any:
        return self.model(input_ids=tokens, use_cache=False).logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        tokens, target = batch
        loss = nn.functional.cross_entropy(self(tokens).flatten(0, 1), target.flatten())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.parameters())


def _fa(net: Callable[[], nn.Module], task: Callable[[], Any]) -> Callable[[], LightningModule]:
    return lambda: FA(net(), task(), optimizer=adamw)


SETTINGS = {
    "residual": Setting(
        _fa(lambda: ResidualMLP(3072, 256, 10, 20), Classification), 128, (3072,), 10
    ),
    "gpt": Setting(_fa(GPT, NextToken), 32, (64,), 65),
    "gpt2": Setting(GPT2, 4, (256,), 50257, ["model.transformer.h.*"]),
    "gpt_124m": Setting(
        _fa(lambda: GPT(50257, 256, depth=12, heads=12, width=768), NextToken), 4, (256,), 50257
    ),
}


def loader(setting: Setting, rows: int) -> TensorLoader:
    """Random data: symbols that follow symbols, or a class for a vector."""
    torch.manual_seed(0)
    if len(setting.shape) == 1 and setting.symbols > 10:
        x = torch.randint(setting.symbols, (rows, *setting.shape))
        y = torch.randint(setting.symbols, (rows, *setting.shape))
    else:
        x, y = torch.randn(rows, *setting.shape), torch.randint(setting.symbols, (rows,))
    return TensorLoader([x, y], batch_size=setting.batch, shuffle=False)


def resident(field: str) -> float:
    """``VmRSS``, or its high-water mark ``VmHWM``, in GB."""
    with open("/proc/self/status") as file:
        found = re.search(rf"{field}:\s+(\d+) kB", file.read())
    return int(found[1]) * 1024 / GB if found else 0.0


def forget_peak() -> None:
    """Let the high-water mark begin anew."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


class Clock(Callback):
    """Stands before and behind the diagnostic, and keeps seconds and peak GB of each stretch."""

    def __init__(self, found: dict[str, list[tuple[float, float]]], first: bool) -> None:
        self.found, self.first = found, first

    def on_train_start(self, *_: Any) -> None:
        self.end(None if self.first else "first")

    def on_train_batch_start(self, *_: Any) -> None:
        if self.first:
            self.end(None)

    def on_train_batch_end(self, *_: Any) -> None:
        self.end("step" if self.first else "measurement")

    def end(self, stretch: str | None) -> None:
        """Note what has passed since the last call, of either clock."""
        now = time.process_time()
        if stretch is not None:
            spent = now - self.found["begun"][0][0]
            self.found.setdefault(stretch, []).append((spent, resident("VmHWM")))
        forget_peak()
        self.found["begun"] = [(time.process_time(), 0.0)]


def measured(net: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and GB of one diagnostic on one net, in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    setting = SETTINGS[net]
    bare = resident("VmRSS")
    limit = int(options.limit * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found: dict[str, list[tuple[float, float]]] = {}
    kind = getattr(callbacks, name) if name else None
    given = dict(options.arguments)
    if setting.units is not None and name in NEED_UNITS:
        given.setdefault("units", setting.units)
    own = [] if kind is None else [kind(figure=False, every_n_steps=1, **given)]
    trainer = Trainer(
        max_steps=options.steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=[Clock(found, True), *own, Clock(found, False)],
        default_root_dir=tempfile.mkdtemp(),
    )
    torch.manual_seed(0)
    error = None
    try:
        trainer.fit(setting.module(), loader(setting, 64), loader(setting, 1024))
    except Exception as raised:
        error = f"{type(raised).__name__}: {' '.join(str(raised).split())[:300]}"
    found.pop("begun", None)
    return {
        **{key: [min(s for s, _ in v), max(m for _, m in v) - bare] for key, v in found.items()},
        "error": error,
    }


def in_process(net: str, name: str, args: Sequence[str], timeout: float) -> dict[str, Any]:
    """The same, in a process of its own."""
    # The allocator gives back what is freed, so that what is resident is what is held.
    given = {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *args, "--child", net, name]
    try:
        done = subprocess.run(
            command, env=os.environ | given, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {timeout:.0f} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {"error": f"exit code {done.returncode}: {done.stderr[-300:]}"}


def report(net: str, names: Sequence[str], args: Sequence[str], timeout: float) -> None:
    """A line for each diagnostic."""
    print(f"{net:18}{'s':>8}{'steps':>8}{'first':>8}{'GB':>8}{'to step':>9}{'first':>8}")
    for name in names:
        found = in_process(net, name, args, timeout)
        if "measurement" not in found:
            print(f"{name:18}{str(found['error'])[:110]}", flush=True)
            continue
        (step, step_gb), (seconds, gb), (first, first_gb) = (
            found[key] for key in ("step", "measurement", "first")
        )
        print(
            f"{name:18}{seconds:8.3f}{seconds / step:8.2f}{first / step:8.2f}{gb:8.2f}"
            f"{gb / step_gb:9.2f}{first_gb / step_gb:8.2f}",
            flush=True,
        )


def scheduled() -> list[str]:
    """Names of all diagnostics on a schedule."""
    kinds = {name: getattr(callbacks, name) for name in callbacks.__all__}
    return [
        n
        for n, k in kinds.items()
        if issubclass(k, callbacks.Diagnostic) and not inspect.isabstract(k)
    ]


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--names", nargs="*", metavar="CALLBACK", help="these; by default all")
    parser.add_argument("--steps", type=int, default=2, help="training steps of each fit")
    parser.add_argument("--limit", type=float, default=9.0, help="GB that a process may hold")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of a process")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of callbacks, as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if args is None else args)
    options = parser.parse_args(given)
    if options.child:
        print(json.dumps(measured(*options.child, options)))
        return
    shared = ["--steps", str(options.steps), "--limit", str(options.limit)]
    shared += ["--arguments", json.dumps(options.arguments)]
    for net in options.nets:
        report(net, options.names or scheduled(), shared, options.timeout)


if __name__ == "__main__":
    main()
