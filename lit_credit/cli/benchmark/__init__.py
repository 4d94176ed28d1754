"""The benchmark of rules: ``lit-credit benchmark``; from Python: :func:`benchmark`."""

from typing import TYPE_CHECKING

from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.cli.benchmark.protocol import benchmark

__all__ = ["benchmark"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(__name__, {"protocol": "benchmark"})
