"""Backpropagation."""

from lit_credit.headlines import Look
from lit_credit.rules.base import CreditRule
from lit_credit.utils.colors import BLUE

__all__ = ["BP"]


class BP(CreditRule):
    """Backpropagation: every parameter follows the gradient of the loss.

    See :class:`lit_credit.rules.CreditRule` for the arguments.

    Reference:
        Rumelhart, Hinton, Williams, Learning representations by back-propagating errors, 1986,
        doi:10.1038/323533a0.
    """

    exact_credit = True
    look = Look(order=0, color=BLUE)
