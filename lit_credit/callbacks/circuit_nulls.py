"""What circuits have that know nothing of each other."""

from collections.abc import Sequence
from statistics import NormalDist

from lit_credit.functional import diagonal_score_null_sd, match_baseline

__all__ = ["expected_best", "null_levels"]


def expected_best(count: int) -> float:
    """Expected largest of so many standard normal numbers, by Blom's approximation."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def null_levels(ranks: Sequence[int], width: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of what unrelated circuits have, by tag."""
    found = {"z": (0.0, diagonal_score_null_sd(width))}
    for rank in ranks:
        null = match_baseline(width, rank)
        found[f"match_rms/R{rank:02d}"] = null.rms_mean, null.rms_sd
        found[f"match_largest/R{rank:02d}"] = null.largest_mean, null.largest_sd
    return found
