"""Selecting the best and the named pairs of heads, and comparing them with unrelated circuits."""

import math
import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from lit_credit.functional import diagonal_score_null_sd, match_baseline
from lit_credit.runs.history import Row

__all__ = ["against_nulls", "at_distance", "chosen_pairs", "match_ranks"]


def at_distance(distance: int) -> str:
    """First part of the tags at a distance: ``D+05/``, and nothing at distance 0."""
    return f"D{distance:+03d}/" if distance else ""


def chosen_pairs(
    scores: Mapping[str, Tensor], distances: Sequence[int], named: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    """For every score, the values of the best pair and of the named pairs.

    Args:
        scores: by tag (D, readers, writers) or (1, readers, writers); NaN where there is no pair.
        distances: the D distances of the key before the query.
        named: places of the named pairs.

    Returns:
        ``z/best`` and so on, ``D+05/z/best`` at a distance.
    """
    values = {}
    for place, distance in enumerate(distances):
        at = at_distance(distance)
        tags = [tag for tag, matrices in scores.items() if place < len(matrices)]
        matrices = torch.stack([scores[tag][place] for tag in tags])  # (tags, readers, writers)
        for name, (i, j) in named.items():
            for tag, value in zip(tags, matrices[:, i, j].tolist(), strict=True):
                values[f"{at}{tag}/{name}"] = value
        for tag, value in zip(tags, _best(tags, matrices), strict=True):
            values[f"{at}{tag}/best"] = value
    return values


def _best(tags: Sequence[str], matrices: Tensor) -> list[float]:
    """The largest defined entry of each matrix, or the smallest of a mismatch; NaN without any."""
    sign = matrices.new_tensor([-1.0 if tag == "mismatch" else 1.0 for tag in tags])
    best = (matrices.flatten(1) * sign[:, None]).nan_to_num(nan=-math.inf).amax(1)
    return torch.where(best.isfinite(), best * sign, torch.nan).tolist()


def against_nulls(
    values: Mapping[str, float], named: Sequence[str], ranks: Sequence[int], width: int, count: int
) -> dict[str, float]:
    """Compare the best pair and the named pairs with unrelated circuits.

    Args:
        values: result of :func:`chosen_pairs`.
        named: names of pairs.
        ranks: ranks of the subspaces.
        width: features of the stream.
        count: number of pairs.
    """
    found = {}
    luck = expected_best(count)
    for tag, (mean, sd) in null_levels(ranks, width).items():
        level = mean + luck * sd
        found[f"{tag}/null"], found[f"null_sd/{tag}"] = level, sd
        for name in ("best", *named):
            value = values[f"{tag}/{name}"]
            if tag == "z":
                found[f"z_sqrt_d/{name}"] = value / sd
                continue
            excess = value - (level if name == "best" else mean)
            found[f"{tag.replace('/', '_sds/', 1)}/{name}"] = excess / sd if sd else math.nan
    return found


def match_ranks(rows: Sequence[Row], section: str = "circuits") -> list[int]:
    """The ranks at which subspaces were matched, in order of their distance from 10.

    Args:
        rows: rows of the history ``circuit_matching``.
        section: prefix of the tags.

    Example:
        >>> values = {"circuits/match_rms/R05/best": 0.3, "circuits/match_rms/R10/best": 0.4}
        >>> match_ranks([{"step": 0, "epoch": 0, "name": "", "values": values}])
        [10, 5]
    """
    tagged = re.compile(rf"{section}/match_rms/R(\d+)/best")
    tags = {tag: None for row in rows for tag in row["values"]}
    found = [int(match[1]) for tag in tags if (match := tagged.fullmatch(tag))]
    return sorted(found, key=lambda rank: abs(rank - 10))


def expected_best(count: int) -> float:
    """Expected largest of ``count`` standard normal numbers, by Blom's approximation."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def null_levels(ranks: Sequence[int], width: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each score for unrelated circuits, by tag."""
    found = {"z": (0.0, diagonal_score_null_sd(width))}
    for rank in ranks:
        null = match_baseline(width, rank)
        found[f"match_rms/R{rank:02d}"] = null.rms_mean, null.rms_sd
        found[f"match_largest/R{rank:02d}"] = null.largest_mean, null.largest_sd
    return found
