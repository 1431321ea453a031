"""Token rows: a folder written by `datasets.save_to_disk` -> pairs of completions as id lists, read from the map.

in   pair_id, prompt_ids, chosen_ids, rejected_ids   one row a pair; completions without the prompt, EOS unless cut
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("pair_id", "prompt_ids", "chosen_ids", "rejected_ids")


class TokenRow(NamedTuple):
    """One pair as token ids."""

    pair_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def tokens(self) -> int:
        """Tokens of the row with its prompt counted once."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


class RowLengths(NamedTuple):
    """Tokens of each part of each row."""

    prompt: npt.NDArray[np.int64]  # (rows,)
    chosen: npt.NDArray[np.int64]
    rejected: npt.NDArray[np.int64]


class TokenRows(Sequence[TokenRow]):
    """The rows of one split, in the order in which they were written; nothing is read before it is asked for."""

    def __init__(self, dataset: "Dataset"):
        self._table = dataset

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return TokenRow(**self._table[index])

    def __iter__(self) -> Iterator[TokenRow]:
        for index in range(len(self)):
            yield self[index]

    def questions(self) -> tuple[int, ...]:
        """The question of each row, as the number of the first row with the same prompt."""
        first: dict[bytes, int] = {}
        found: list[int] = []
        for chunk in self._table.data.column("prompt_ids").chunks:
            values, ends = chunk.flatten().to_numpy(), np.cumsum(chunk.value_lengths().to_numpy(zero_copy_only=False))
            for prompt in np.split(values, ends)[:-1]:  # behind the last end is nothing, in an empty chunk too
                found.append(first.setdefault(prompt.tobytes(), len(found)))
        return tuple(found)

    def largest_id(self) -> int:
        """The largest token id of all rows."""
        import pyarrow.compute as pc

        largest = [pc.max(pc.list_flatten(self._table.data.column(column))).as_py() for column in COLUMNS[1:]]
        return max((found for found in largest if found is not None), default=0)

    def lengths(self) -> RowLengths:
        """Tokens of every prompt, chosen and rejected completion, without reading the ids."""
        import pyarrow.compute as pc

        def of(column: str) -> npt.NDArray[np.int64]:
            counts = pc.list_value_length(self._table.data.column(column))
            return np.asarray(counts.to_numpy(), dtype=np.int64)

        return RowLengths(of("prompt_ids"), of("chosen_ids"), of("rejected_ids"))


def load_rows(folder: Path) -> TokenRows:
    """The token rows in `folder`.

    Raises:
        ValueError: the folder's columns are not those of token rows.
    """
    from datasets import load_from_disk

    dataset = load_from_disk(str(folder))
    if set(dataset.column_names) != set(COLUMNS):
        raise ValueError(f"{folder} holds the columns {sorted(dataset.column_names)}, token rows have {list(COLUMNS)}")
    return TokenRows(dataset)
