r"""What one measurement of each callback costs, and its share of training at its default schedule.

    python benchmarks/callback_time.py
    python benchmarks/callback_time.py SoftmaxJacobian AttentionMaps \
        --net gpt --batch-size 32 --epoch-steps 100

A measurement is timed inside of a fit under FA, in turns with bare steps, as CPU time of the
process; its share is of an epoch of --epoch-steps steps (391 of batch 128 are one of CIFAR-10).
FiniteGuard is at work in every second step of a fit, and its cost is the ratio of the two.
"""

import argparse
import inspect
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_time import fit_with
from step_time import make_batches, make_rules, parser_of, rule_step
from timing import begin, time_rounds

from lit_credit import callbacks


class MeasurementClock(Callback):
    """Before training, repeats a diagnostic's measurement, in turns with a bare training step."""

    def __init__(
        self, diagnostic: callbacks.Diagnostic, steps: Callable[[], None], rounds: int
    ) -> None:
        self.diagnostic, self.steps, self.rounds = diagnostic, steps, rounds
        self.seconds: dict[str, list[float]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure many times what the diagnostic has measured once by now."""

        def measure() -> None:
            self.diagnostic._last_step = -1  # or it would not measure a step twice
            self.diagnostic._measure(trainer, pl_module, 0)

        contestants = {"measurement": measure, "steps": self.steps}
        self.seconds = time_rounds(contestants, self.rounds)


class EverySecondStep(callbacks.FiniteGuard):
    """Guards every second step only, and keeps the CPU seconds of both kinds."""

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        self.guards = False

    def on_train_batch_start(self, *args: Any) -> None:
        self.guards = not self.guards
        self.begun = time.process_time()
        if self.guards:
            super().on_train_batch_start(*args)

    def on_before_backward(self, *args: Any) -> None:
        if self.guards:
            super().on_before_backward(*args)

    def on_before_optimizer_step(self, *args: Any) -> None:
        if self.guards:
            super().on_before_optimizer_step(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.guards:
            super().on_train_batch_end(*args)
        self.seconds[self.guards].append(time.process_time() - self.begun)


def report_guard(options: argparse.Namespace) -> None:
    """What FiniteGuard adds to a step."""
    batches = make_batches(options.net, options.batch_size, count=8) * 2 * options.rounds
    for policy in ("raise", "skip"):
        guard = EverySecondStep(policy)
        fit_with(make_rules(options.net, options.depth)["FA"], batches, [guard])
        without, with_it = (1e3 * statistics.median(guard.seconds[on]) for on in (False, True))
        times = f"{without:.2f} ms a step, {with_it:.2f} with it, n = {len(guard.seconds[True])}"
        print(f"FiniteGuard({policy!r}): {with_it / without:.3f} ({times})")


def report_callbacks(options: argparse.Namespace) -> None:
    """One measurement of each diagnostic, and its share of an epoch at the default schedule."""
    batches = make_batches(options.net, options.batch_size, count=8)
    step = rule_step(make_rules(options.net, options.depth)["FA"])
    print(f"{options.net} under FA, an epoch of {options.epoch_steps} steps")
    print(f"{'callback':24}{'rows':>6}{'ms a measurement':>18}{'of an epoch':>13}")
    kinds = [getattr(callbacks, name) for name in options.names or callbacks.__all__]
    for kind in kinds:
        if not issubclass(kind, callbacks.Diagnostic) or inspect.isabstract(kind):
            continue
        diagnostic = kind(figure=False)
        clock = MeasurementClock(
            diagnostic, lambda: [step(batch) for batch in batches] and None, options.rounds
        )
        try:
            fit_with(make_rules(options.net, options.depth)["FA"], batches, [diagnostic, clock])
        except (MisconfigurationException, ValueError) as error:
            print(f"{kind.__name__:24}does not apply: {str(error).splitlines()[0][:60]}")
            continue
        epoch = statistics.median(clock.seconds["steps"]) / len(batches) * options.epoch_steps
        ms = 1e3 * statistics.median(clock.seconds["measurement"])
        share = ms / (1e3 * epoch * (diagnostic.every_n_epochs or 1))
        rows = getattr(diagnostic, "n_samples", 0)
        print(f"{kind.__name__:24}{rows:6}{ms:18.1f}{100 * share:12.2f}%")


def main(args: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("names", nargs="*", metavar="CALLBACK", help="these; by default all")
    parser.add_argument("--epoch-steps", type=int, default=391)
    options = parser.parse_args(args)
    begin(options.threads, options.rounds)
    report_callbacks(options)
    if "FiniteGuard" in (options.names or ["FiniteGuard"]):
        report_guard(options)


if __name__ == "__main__":
    main()
