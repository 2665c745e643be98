# SPDX-License-Identifier: GPL-2.0-or-later
"""The median of a few noisy ratios, and how far it can be trusted."""

from math import comb, inf
from statistics import median
from typing import List, NamedTuple, Sequence, Tuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A median; the true one lies within +- spread of it, most likely"""
    median: float
    spread: float
    pairs: int


def interval_ranks(count: int, confidence: float = CONFIDENCE):
    """
    Ranks, from 1, of the order statistics that enclose the true median.

    Whatever the distribution, each sample is below its median with
    probability 1/2; so the interval from the k-th smallest to the k-th
    largest misses the median with probability 2 * P(Binomial < k).  None if
    not even the whole range is sure enough.
    """
    best = 0
    below = 0.0
    for rank in range(1, count // 2 + 1):
        below += comb(count, rank - 1) / 2 ** count
        if 1 - 2 * below < confidence:
            break
        best = rank
    return (best, count + 1 - best) if best else None


def estimate(samples: Sequence[float],
             confidence: float = CONFIDENCE) -> Estimate:
    """
    The median of the samples.  Its spread is the distance to the farther end
    of the confidence interval, infinite while there are too few samples.
    """
    if not samples:
        raise ValueError('no samples')
    ordered = sorted(samples)
    middle = median(ordered)
    ranks = interval_ranks(len(ordered), confidence)
    if ranks is None:
        return Estimate(middle, inf, len(ordered))
    low, high = ordered[ranks[0] - 1], ordered[ranks[1] - 1]
    return Estimate(middle, max(middle - low, high - middle), len(ordered))


def _check_slices(reference: Sequence[float], other: Sequence[float]):
    if len(reference) != len(other):
        raise ValueError(f'{len(reference)} slices here, {len(other)} there')
    if not all(value > 0 for value in reference):
        raise ValueError('a slice that took no time')


def paired_ratio(reference: Sequence[float], other: Sequence[float]) -> float:
    """The median ratio of slices that ran side by side."""
    _check_slices(reference, other)
    return median(b / a for a, b in zip(reference, other))


def fastest_ratio(reference: Sequence[float], other: Sequence[float]) -> float:
    """
    The ratio of the fastest slice of each side.

    For work that is the same in each slice: what else goes on in a host, or in
    the host of a virtual one, makes it slower, by bursts, so that the fastest
    slice says most about the work itself.
    """
    _check_slices(reference, other)
    return min(other) / min(reference)


def turns(sides: Sequence[str], rounds: int) -> List[Tuple[str, ...]]:
    """
    The order of the sides in each round: there and back again (A B, B A, ...),
    so that a slow drift hits all of them alike.
    """
    return [tuple(sides) if i % 2 == 0 else tuple(reversed(sides))
            for i in range(rounds)]
