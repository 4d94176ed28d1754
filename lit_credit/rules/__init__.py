"""Learning rules: one LightningModule each."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.rules.base import CreditRule
from lit_credit.rules.block_fa import BlockFA
from lit_credit.rules.bp import BP
from lit_credit.rules.dfa import DFA
from lit_credit.rules.fa import FA
from lit_credit.rules.frozen_units import FrozenUnits
from lit_credit.rules.local import LocalRule
from lit_credit.rules.warmup_cosine import WarmupCosine

__all__ = ["BP", "DFA", "FA", "BlockFA", "CreditRule", "FrozenUnits", "LocalRule", "WarmupCosine"]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
