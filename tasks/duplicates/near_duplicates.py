"""Which texts are near duplicates of one another: candidates by MinHash, each verified by exact Jaccard.

Prompts are compared with prompts and answers with answers; equal texts are one text. MinHash decides only what is
looked at: what is called near here is so by its shingles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.duplicates.clusters import connected
from tasks.duplicates.content import normalised
from tasks.duplicates.jaccard import Int, ShingleSets
from tasks.duplicates.minhash import Sketches
from tasks.ordered import batches

CROWD: Final = 64  # texts in a bucket from which it is not compared all with all, but with one leader after the other
LEADERS: Final = 2_000  # in one bucket, at most
MET: Final = 1_000_000  # pairs of texts that are brought together at a time
FOLLOWS: Final = 8  # leaders that a text of a crowd is near before it is left alone


@dataclass(frozen=True)
class NearTexts:
    """The distinct texts of one kind and which of them are near duplicates."""

    keys: pl.DataFrame
    """`key` (content key) and `text`, its number, in the order of the keys. One number more is the empty text's."""
    shingles: Int
    """How many each text has, with repeats."""
    left: Int
    """Edges: text left[i] and text right[i] are at least as similar as the threshold; left < right."""
    right: Int
    left_out: int
    """How often a text shared a band with so many unlike ones that it was not compared with all of them."""

    def numbers(self, keys: pl.Series) -> Int:
        """The numbers of texts by their content keys."""
        found = pl.DataFrame({"key": keys}).join(self.keys, on="key", how="left", maintain_order="left")
        return found["text"].cast(pl.Int64).fill_null(self.keys.height).to_numpy()

    def components(self) -> Int:
        """The connected component of each text."""
        return connected(self.shingles.size, self.left, self.right)


def near_texts(
    sketches: Sketches, rows: pl.DataFrame, columns: Sequence[str], source: Path, threshold: float
) -> NearTexts:
    """The near duplicates among the texts in `columns` of the `rows` of the table `source`.

    sketches  has been told of all of them, and perhaps of more
    rows      `row`, its number in the table, `turn`, when it is judged, and in `columns` the content keys of texts
    """
    texts = sketches.finish()
    used = pl.concat([rows.select(key=column) for column in columns]).unique()
    texts = texts.join(used, on="key", how="semi").sort("key")
    entries = texts["entry"].to_numpy()
    keys = texts.select("key").with_row_index("text")
    suspect = np.zeros(entries.size, dtype=bool)
    for bucket in sketches.buckets(entries):
        suspect[bucket["text"]] = True
    sets = ShingleSets(sketches.folder / "sets", entries.size)
    _read(sets, keys.filter(pl.Series(suspect)), rows, columns, source)
    turns = pl.concat([rows.select("turn", key=column) for column in columns]).group_by("key").agg(pl.col("turn").min())
    ranks = keys.join(turns, on="key", how="left", maintain_order="left")["turn"].cast(pl.Int64).to_numpy()
    left, right, left_out = _edges(sketches, entries, sets, ranks, threshold)
    return NearTexts(keys, np.append(texts["shingles"].to_numpy(), 0), left, right, left_out)


def _read(sets: ShingleSets, wanted: pl.DataFrame, rows: pl.DataFrame, columns: Sequence[str], source: Path) -> None:
    """Read the texts that are to be compared once more, each where it stands first, and keep their shingles."""
    stand = [rows.select("row", key=column, column=pl.lit(column)).join(wanted, on="key") for column in columns]
    there = pl.concat(stand).sort("row", "column").unique("text", keep="first", maintain_order=True)
    first = there["row"].to_numpy()
    start = 0
    for batch in batches(source, columns) if there.height else ():
        here = there.slice(*_span(first, start, start + batch.height))
        stands = here.select("row", "column").iter_rows()
        texts = [normalised(batch[column][row - start] or "") for row, column in stands]
        sets.add(here["text"].cast(pl.Int64).to_numpy(), texts)
        start += batch.height
    sets.finish()


def _span(ascending: NDArray[np.integer], low: int, high: int) -> tuple[int, int]:
    """Where the numbers from `low` to below `high` begin, and how many there are."""
    begin, end = np.searchsorted(ascending, [low, high])
    return int(begin), int(end - begin)


def _edges(
    sketches: Sketches, entries: NDArray[np.uint32], sets: ShingleSets, ranks: Int, threshold: float
) -> tuple[Int, Int, int]:
    """The candidates of all bands that are similar enough; and how often a text was left uncompared in a crowd."""
    seen = np.empty(0, dtype=np.uint64)  # both numbers of an edge in one, sorted
    found = [np.empty(0, dtype=np.uint64)]
    left_out = 0
    for bucket in sketches.buckets(entries):
        sized = bucket.with_columns(size=pl.len().over("key"))
        met_here = [seen]
        for small in _shares(sized.filter(pl.col("size") <= CROWD)):
            met = small.join(small, on="key").filter(pl.col("text") < pl.col("text_right"))
            codes = np.unique(_code(met["text"].to_numpy(), met["text_right"].to_numpy()))
            new = codes[~_among(codes, seen)]
            found.append(new[sets.similarity(*_decoded(new)) >= threshold])
            met_here.append(new)
        # A text is in one bucket of a band, so no two shares have an edge in common.
        seen = np.sort(np.concatenate(met_here))
        crowded = sized.filter(pl.col("size") > CROWD).group_by("key", maintain_order=True).agg("text")
        for crowd in crowded["text"]:
            members = crowd.cast(pl.Int64).to_numpy()
            edges, rest = _led(members[np.argsort(ranks[members], kind="stable")], sets, threshold)
            found.append(edges)
            left_out += rest
    return *_decoded(np.unique(np.concatenate(found))), left_out


def _shares(buckets: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """`key` and `text` of whole buckets, whose texts make about MET pairs; `buckets` is sorted by key."""
    met = np.cumsum(buckets["size"].cast(pl.Int64).to_numpy())  # a text meets as many as its bucket has
    start = 0
    while start < buckets.height:
        before = int(met[start - 1]) if start else 0
        end = min(int(np.searchsorted(met, before + MET, side="right")) + 1, buckets.height)
        key = buckets["key"]
        while end < buckets.height and key[end] == key[end - 1]:  # fewer than CROWD steps
            end += 1
        yield buckets.slice(start, end - start).select("key", "text")
        start = end


def _among(codes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of `codes` are in `known`, which is sorted."""
    if not known.size:
        return np.zeros(codes.size, dtype=np.bool_)
    place = np.minimum(np.searchsorted(known, codes), known.size - 1)
    found: NDArray[np.bool_] = known[place] == codes
    return found


def _led(members: Int, sets: ShingleSets, threshold: float) -> tuple[NDArray[np.uint64], int]:
    """Edges in a crowded bucket, and how many texts were not compared: one text after the other leads.

    A leader is compared with all who are still there; who is near FOLLOWS leaders need not be there any longer. So a
    thousand copies of a form letter cost some thousand comparisons and not half a million, and each copy is tied to
    those whose pairs have the first turn: when one of those stays, it goes.
    """
    found = [np.empty(0, dtype=np.uint64)]
    follows = np.zeros(members.size, dtype=np.int64)
    for _ in range(LEADERS):
        if members.size < 2:
            return np.concatenate(found), 0
        leader, members, follows = members[:1], members[1:], follows[1:]
        near = sets.similarity(np.repeat(leader, members.size), members) >= threshold
        found.append(_code(np.minimum(leader, members[near]), np.maximum(leader, members[near])))
        follows = follows + near
        members, follows = members[follows < FOLLOWS], follows[follows < FOLLOWS]
    return np.concatenate(found), int(members.size)


def _code(left: NDArray[np.integer], right: NDArray[np.integer]) -> NDArray[np.uint64]:
    return (left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64)


def _decoded(codes: NDArray[np.uint64]) -> tuple[Int, Int]:
    return (codes >> np.uint64(32)).astype(np.int64), (codes & np.uint64(0xFFFFFFFF)).astype(np.int64)
