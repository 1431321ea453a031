"""How much an answer is preferred, by rule.

in   net votes, and whether the asker accepted the answer
out  an integer; of two answers to one question the higher is preferred, equal ones are a tie
"""

from math import isqrt
from typing import Final, Literal

import numpy as np
import polars as pl

Rule = Literal["pm", "votes"]

# round(log2(1 + votes)) >= k exactly when 1 + votes > 2 ** (k - 1/2), which is never whole, so exactly when
# votes >= isqrt(2 ** (2k - 1)): integers decide, not the rounding of a logarithm.
_LEAST_VOTES: Final = np.array([isqrt(2 ** (2 * k - 1)) for k in range(1, 64)], dtype=np.int64)


def ranks(rule: Rule, votes: pl.Series, accepted: pl.Series) -> pl.Series:
    """The rank of each answer.

    `votes`: the raw score. `pm`: round(log2(1 + votes)), +1 if accepted; below zero votes -1 whatever else (Askell et
    al. 2021, arXiv:2112.00861, as the card of HuggingFaceH4/stack-exchange-preferences has it).
    """
    if rule == "votes":
        return votes.cast(pl.Int64).alias("rank")
    score = votes.cast(pl.Int64).to_numpy()
    logarithm = np.searchsorted(_LEAST_VOTES, score, side="right")
    rank = np.where(score < 0, -1, logarithm + accepted.to_numpy())
    return pl.Series("rank", rank.astype(np.int64))
