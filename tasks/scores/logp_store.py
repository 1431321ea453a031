"""Log-probs of pairs that were scored before, by content: what a model says of given token ids does not change.

    WORK_DIR/logps/<space>/<digest of the file>.parquet    key, chosen_logps, rejected_logps

A space is (the bytes of the model, precision, layout of the forward pass); a key is the digest of the three id lists
of a pair. Learning rate, beta, epochs, batch size, ranks and paths are in neither. Files are only ever added, each
named for its bytes: one that a crash tore, or that a disk changed, does not answer to its name, is said and removed,
and its pairs are scored again.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from blake3 import blake3

from tasks.digests import sync_file, sync_folder
from tasks.manifest import digest_json

SCHEMA: Final = pl.Schema({"key": pl.String, "chosen_logps": pl.Float64, "rejected_logps": pl.Float64})


@dataclass(frozen=True)
class LogpStore:
    """The log-probs of one space."""

    folder: Path

    @classmethod
    def of(cls, work_dir: Path, space: Mapping[str, object]) -> "LogpStore":
        """The store of what bears on a log-prob beside the token ids."""
        return cls(work_dir / "logps" / digest_json(dict(space))[:16])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For the time of the context, beside others that use it too, this folder is not removed (`prefstack gc`)."""
        lock = self.folder.parents[1] / "locks" / f"{self.folder.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)  # released by the kernel if the holder dies
            yield

    def read(self, say: Callable[[str], None] = lambda _: None) -> pl.DataFrame:
        """All that is known, each key once; a damaged file is removed and named to `say`."""
        frames = [pl.DataFrame(schema=SCHEMA)]
        for path in sorted(self.folder.glob("*.parquet")):
            content = path.read_bytes()
            if blake3(content).hexdigest() == path.stem:
                frames.append(pl.read_parquet(content))
            else:
                say(f"{path} has other bytes than were written: it is removed, and its pairs are scored again")
                path.unlink(missing_ok=True)
        return pl.concat(frames).unique("key", keep="first", maintain_order=True)

    def add(self, known: pl.DataFrame) -> None:
        """Remember the rows of `known` (the columns of SCHEMA)."""
        if known.height == 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".adding-{os.getpid()}"
        known.select(SCHEMA.names()).sort("key").write_parquet(scratch)
        sync_file(scratch)
        scratch.rename(self.folder / f"{blake3(scratch.read_bytes()).hexdigest()}.parquet")
        sync_folder(self.folder)


def pair_keys(rows: pl.DataFrame) -> pl.Series:
    """The key of each token row: a digest of the ids of prompt, chosen and rejected, and of where each ends."""
    columns = [rows.get_column(f"{part}_ids") for part in ("prompt", "chosen", "rejected")]
    keys = []
    for parts in zip(*columns, strict=True):
        digest = blake3()
        for ids in parts:
            values = ids.to_numpy().astype("<i4")
            digest.update(len(values).to_bytes(8, "little"))
            digest.update(values.tobytes())
        keys.append(digest.hexdigest(length=16))
    return pl.Series("key", keys, dtype=pl.String)
