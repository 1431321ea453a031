"""How sure a number is: a bootstrap over questions, the exact interval where they all agree, McNemar's test.

Pairs of one question share a prompt, often an answer, and stand or fall together; so questions are drawn, never
pairs. Every mean is a quotient of two sums (right / pairs, log-prob / tokens): its resample costs one sum a question.

Shapes: P pairs, U units (questions), K quotients.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.keyed import keyed_rank

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Z_95 = 1.959963984540054  # standard normal quantile of 0.975


class Ratio(NamedTuple):
    """A quotient of sums over pairs. For an accuracy: 1.0 where right, over 1.0 where the pair counts."""

    top: FloatArray  # (P,)
    bottom: FloatArray  # (P,)
    share: bool = True
    """Whether the quotient lies in [0, 1], so that an interval of a share makes sense."""
    difference: bool = False
    """Whether it is a share minus a share, each of the same pairs: in [-1, 1]."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None where the rows say nothing."""

    value: float | None
    low: float | None
    high: float | None

    def named(self, name: str) -> dict[str, float | None]:
        """`{name, low, high}`, for metrics.json."""
        return {name: self.value, "low": self.low, "high": self.high}


def mean(
    values: FloatArray, *, where: npt.NDArray[np.bool_] | None = None, share: bool = True, difference: bool = False
) -> Ratio:  # fmt: skip
    """The plain mean of `values`, over the pairs in `where`; a `difference` is no share."""
    counted = np.ones(len(values)) if where is None else where.astype(np.float64)
    return Ratio(np.where(counted > 0, values, 0.0), counted, share and not difference, difference)


def resamples(units: int, times: int, seed: int) -> Iterator[IntArray]:
    """`times` draws with replacement of `units` units, as indices (U,); the same for the same arguments.

    Made from the raw stream of PCG64, which NumPy promises not to change, as it does not for `Generator.integers`.
    """
    stream = np.random.PCG64(keyed_rank(seed, "bootstrap", "questions"))
    for _ in range(times):
        yield (stream.random_raw(units) % np.uint64(units)).astype(np.int64)


def bootstrap(ratios: Mapping[str, Ratio], units: IntArray, *, times: int, seed: int) -> dict[str, Estimate]:
    """Each quotient with its percentile interval over resampled units.

    `units` (P,) numbers each pair's question from 0. Where every resample agrees (all right, or one question only)
    the bootstrap knows nothing of chance: shares then get the exact interval for that many questions, and differences
    of shares the one that comes of it (`agreed`).
    """
    if len(units) == 0:
        return {name: Estimate(None, None, None) for name in ratios}
    count = int(units.max()) + 1
    top = np.stack([_per_unit(ratio.top, units, count) for ratio in ratios.values()], axis=1)  # (U, K)
    bottom = np.stack([_per_unit(ratio.bottom, units, count) for ratio in ratios.values()], axis=1)
    drawn = np.full((times, len(ratios)), np.nan)
    for row, chosen in enumerate(resamples(count, times, seed)):
        below = bottom[chosen].sum(axis=0)
        np.divide(top[chosen].sum(axis=0), below, out=drawn[row], where=below > 0)
    estimates = {}
    for column, (name, ratio) in enumerate(ratios.items()):
        total = bottom[:, column].sum()
        if total == 0:
            estimates[name] = Estimate(None, None, None)
            continue
        value = float(top[:, column].sum() / total)
        informative = int((bottom[:, column] > 0).sum())
        estimates[name] = _estimate(value, drawn[:, column], informative, ratio)
    return estimates


def _per_unit(values: FloatArray, units: IntArray, count: int) -> FloatArray:
    return np.bincount(units, weights=values, minlength=count).astype(np.float64)


def _estimate(value: float, drawn: FloatArray, units: int, ratio: Ratio) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    bounded = ratio.share or ratio.difference
    if units >= 2 and len(known) > 0:
        low, high = percentiles(known)
        if high - low > 1e-12 or not bounded:
            return Estimate(value, low, high)
    if not bounded:
        return Estimate(value, None, None)
    if ratio.difference:
        return Estimate(value, *agreed(value, units))
    return Estimate(value, *exact(value * units, units))


def agreed(difference: float, count: int) -> tuple[float, float]:
    """95 % interval of a difference of shares that is the same in each of `count` units.

    As many units as the exact interval for none of `count` allows may be otherwise, and at the worst by -1 or 1.
    """
    unseen = exact(0, count)[1]
    return difference - unseen * (1 + difference), difference + unseen * (1 - difference)


def percentiles(drawn: FloatArray) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def exact(right: float, count: float) -> tuple[float, float]:
    """95 % interval for `right` of `count` that never covers less (Clopper and Pearson 1934).

    All of four: 0.398 to 1, since a share of 0.398 gives four of four in 2.5 % of cases (0.398^4). Wilson's interval
    would begin at 0.510 and take them for better than a coin, which gets four of four in 6 % of cases.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(right, count - right + 1, 0.025)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, count - right, 0.975)) if right < count else 1.0
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: the pairs that exactly one of two models gets right fall like a fair coin.

    It takes pairs for independent, so with several pairs a question it is too sure; the bootstrap beside it is not.
    """
    from scipy.stats import binomtest

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def coin_range(count: int) -> tuple[float, float]:
    """Between which accuracies 95 % of fair coins end that are tossed once a pair."""
    from scipy.stats import binom

    return float(binom.ppf(0.025, count, 0.5)) / count, float(binom.ppf(0.975, count, 0.5)) / count
