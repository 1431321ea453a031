"""Connected components of rows, against a search that follows every link."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.duplicates.clusters import components, names

COLUMN = st.none() | st.integers(0, 6)


@settings(deadline=None)
@given(st.lists(st.tuples(COLUMN, COLUMN, COLUMN, st.integers(-1, 9), st.integers(-1, 9)), min_size=1, max_size=30))
def test_rows_are_together_exactly_when_a_chain_of_links_joins_them(rows):
    frame = pl.DataFrame(
        rows, schema={"a": pl.Int64, "b": pl.Int64, "c": pl.Int64, "x": pl.Int64, "y": pl.Int64}, orient="row"
    )
    labels = components(
        len(rows), [frame.select("a", "b"), frame.select("c")], [frame["x"].to_numpy(), frame["y"].to_numpy()]
    )

    def linked(one, other):
        same_pair = None not in one[:2] and one[:2] == other[:2]
        same_c = one[2] is not None and one[2] == other[2]
        return same_pair or same_c or bool(({one[3], one[4]} & {other[3], other[4]}) - {-1})

    for start in range(len(rows)):
        reached, open_ends = {start}, [start]
        while open_ends:
            here = open_ends.pop()
            for other in range(len(rows)):
                if other not in reached and linked(rows[here], rows[other]):
                    reached.add(other)
                    open_ends.append(other)
        assert {place for place, label in enumerate(labels) if label == labels[start]} == reached


def test_a_component_is_named_after_its_smallest_id():
    labels = np.array([4, 0, 4, 0])
    assert names(labels, pl.Series(["d", "c", "b", "a"])).to_list() == ["b", "a", "b", "a"]
