"""Clusters: rows that hang together through anything that they share."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray


def components(count: int, links: Sequence[pl.DataFrame], hubs: Sequence[NDArray[np.int64]] = ()) -> NDArray[np.int64]:
    """The connected component of each of `count` rows.

    links  frames of `count` rows; two rows with the same values in all columns of one of them are connected.
           A null connects nothing.
    hubs   numbers, one for each row; two rows with the same number in any of the arrays are connected. -1 connects
           nothing.
    """
    heads, tails = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for link in links:
        numbered = link.with_row_index("_row").drop_nulls()
        shared = numbered.with_columns(_first=pl.col("_row").min().over(link.columns)).filter(
            pl.col("_row") != pl.col("_first")
        )
        heads.append(shared["_first"].to_numpy())
        tails.append(shared["_row"].to_numpy())
    nodes = count
    for hub in hubs:
        there = np.flatnonzero(hub >= 0)
        heads.append(there)
        tails.append(count + hub[there])
        nodes = max(nodes, count + 1 + int(hub.max(initial=-1)))
    return connected(nodes, np.concatenate(heads), np.concatenate(tails))[:count]


def connected(count: int, heads: NDArray[np.integer], tails: NDArray[np.integer]) -> NDArray[np.int64]:
    """The component of each of `count` nodes under the edges (heads[i], tails[i])."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if count == 0:
        return np.empty(0, dtype=np.int64)
    edges = coo_array((np.ones(len(heads), dtype=np.int8), (heads, tails)), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, dtype=np.int64)


def names(labels: NDArray[np.int64], ids: pl.Series) -> pl.Series:
    """For each row the smallest id of its component: a name that does not depend on the order of rows."""
    frame = pl.DataFrame({"label": labels, "id": ids})
    return frame.select(pl.col("id").min().over("label"))["id"]
