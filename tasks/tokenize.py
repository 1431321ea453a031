"""Tokenize: pairs -> token ids, one row a pair, prompt once.

in   train.parquet, held_out.parquet, the model's tokenizer
out  train/, held_out/   datasets (save_to_disk): pair_id, prompt_ids, chosen_ids, rejected_ids
     dropped.parquet     pair_id, reason, place

Answers end with EOS. Prompt and answer together are cut on the right at `max_length`, each side on its own; a cut
answer has no EOS. Rows keep the order of the sample. Nothing takes the place of a dropped row.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import polars as pl
from pydantic import Field

from tasks.config import StageConfig
from tasks.manifest import Manifest, reasons
from tasks.pairs import DROPPED_SCHEMA
from tasks.store import Store, Workspace
from tasks.tokens.encoder import Encoder, PairIds

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1  # bump when the bytes this stage writes would change

SPLITS: Final = ("train", "held_out")
DROP_REASONS: Final = ("prompt_too_long", "same_after_truncation")

# Pairs encoded at a time: two texts each, and an encoding costs about a hundred bytes a token.
_CHUNK: Final = 256

TokenizeDrop = Literal["prompt_too_long", "same_after_truncation"]


class TokenizeConfig(StageConfig):
    """How text becomes token ids."""

    template: Literal["tulu"] = "tulu"
    """Chat template around prompt and answer."""
    max_length: int = Field(2048, ge=8)
    """Tokens, prompt and answer together; longer answers are cut on the right, each side on its own."""


class CutIds(NamedTuple):
    """The ids of one pair that fit into `max_length`."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def cut(ids: PairIds, max_length: int) -> CutIds | TokenizeDrop:
    """`ids` with each answer cut to what its prompt leaves of `max_length`, or why the pair is dropped."""
    room = max_length - len(ids.prompt)
    if room <= 0:
        return "prompt_too_long"
    fitting = CutIds(ids.prompt, ids.chosen[:room], ids.rejected[:room])
    if fitting.chosen == fitting.rejected:
        return "same_after_truncation"
    return fitting


def tokenize(store: Store, sampled: Manifest, model: Manifest, config: TokenizeConfig) -> Manifest:
    """The token rows of both splits.

    Counts: `pairs = train + held_out + dropped.*`; `truncated.chosen` and `truncated.rejected` of the rows kept;
    `boundary_spans`, the rows whose prompt and answers were encoded apart since a token would have spanned the two;
    `tokens` of the rows kept, each prompt once.
    """

    def build(work: Workspace) -> dict[str, int]:
        encoder = Encoder.load(model.path("model"))
        whole = {split: sampled.path(f"{split}.parquet") for split in SPLITS}
        tally: Counter[str] = Counter(
            {split: 0 for split in SPLITS} | {"truncated.chosen": 0, "truncated.rejected": 0, "boundary_spans": 0}
        )
        total = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in whole.values())
        dropped: list[tuple[str, str, str]] = []
        for split, path in whole.items():
            _write_split(work, split, path, encoder, config.max_length, tally, dropped, total)
        pl.DataFrame(dropped, schema=DROPPED_SCHEMA, orient="row").write_parquet(work.folder / "dropped.parquet")
        work.provenance["tokenizer"] = {"begin": encoder.begin, "end": encoder.end}
        drops = reasons("dropped", DROP_REASONS, Counter(reason for _, reason, _ in dropped))
        return {"pairs": total, **{name: tally[name] for name in tally if name != "tokens"}, **drops,
                "tokens": tally["tokens"]}  # fmt: skip

    return store.stage("tokenize", VERSION, config.identity(), {"sampled": sampled, "model": model}, build)


def _write_split(
    work: Workspace, split: str, source: Path, encoder: Encoder, max_length: int, tally: Counter[str],
    dropped: list[tuple[str, str, str]], total: int,
) -> None:  # fmt: skip
    """Write the rows of one split, counting into `tally` and `dropped`."""
    import pyarrow as pa

    def batches() -> Iterator["pa.RecordBatch"]:
        for start, pairs in _chunks(source):
            rows: list[tuple[str, CutIds]] = []
            encoded = encoder.pairs(pairs["prompt"].to_list(), pairs["chosen"].to_list(), pairs["rejected"].to_list())
            for place, (pair_id, ids) in enumerate(zip(pairs["pair_id"].to_list(), encoded, strict=True), start + 1):
                fitting = cut(ids, max_length)
                if isinstance(fitting, str):
                    dropped.append((pair_id, fitting, f"{split}.parquet row {place}"))
                    continue
                rows.append((pair_id, fitting))
                tally["truncated.chosen"] += len(fitting.chosen) < len(ids.chosen)
                tally["truncated.rejected"] += len(fitting.rejected) < len(ids.rejected)
                tally["boundary_spans"] += ids.spanned
                tally["tokens"] += sum(len(side) for side in fitting)
            tally[split] += len(rows)
            done = tally["train"] + tally["held_out"] + len(dropped)
            work.progress(done, total, "pairs")
            yield pa.record_batch(
                [
                    pa.array([pair_id for pair_id, _ in rows], pa.string()),
                    *(pa.array([ids[side] for _, ids in rows], pa.list_(pa.int32())) for side in range(3)),
                ],
                schema=schema,
            )

    schema = pa.schema([("pair_id", pa.string())] + [(f"{side}_ids", pa.list_(pa.int32())) for side in CutIds._fields])
    scratch = work.partial / f"{split}.arrow"
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches():
            writer.write_batch(batch)
    _save_to_disk(scratch, work.folder / split, split)


def _chunks(source: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """The texts of `source` in order, a few hundred pairs at a time, each with the number of its first row."""
    import pyarrow.parquet as pq

    start = 0
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_CHUNK, columns=["pair_id", "prompt", "chosen", "rejected"]):
            pairs = pl.DataFrame(pl.from_arrow(batch))
            yield start, pairs
            start += pairs.height


def _save_to_disk(stream: Path, folder: Path, split: str) -> None:
    """Save the Arrow stream as a data set whose files hold nothing but its rows: no path and no random fingerprint."""
    from datasets import Dataset, DatasetInfo
    from datasets.table import MemoryMappedTable
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    table = MemoryMappedTable.from_file(str(stream))
    # Without rows it would write no file at all, and then fail to load what it wrote.
    shards = None if table.num_rows else 1
    Dataset(table, info=DatasetInfo(), fingerprint=f"prefstack-{split}").save_to_disk(str(folder), num_shards=shards)
