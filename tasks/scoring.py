"""Scoring: token rows and a model -> summed log-probs of every completion, computed by processes of their own.

in   pair_id, prompt_ids, chosen_ids, rejected_ids              a `datasets` folder
out  pair_id, chosen_logps, rejected_logps, chosen_tokens, rejected_tokens   parquet, in the order of the rows
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from tasks.errors import StageFailed
from tasks.ranks import run_ranks
from tasks.store import Workspace
from tasks.token_rows import read_token_rows
from training.config import Precision
from training.jobs import ScoreJob

# In bf16 a value depends on what it is packed with, so that a policy trained in packs wants a reference scored in
# packs; in fp32 it does not beyond 1e-6, and a pair alone has the same bits in every sample.
BF16_TOKENS_PER_PACK: Final = 8192
PARTS_SCHEMA: Final = pl.Schema(
    {"row": pl.Int64, "chosen_logps": pl.Float64, "rejected_logps": pl.Float64, "chosen_tokens": pl.Int64,
     "rejected_tokens": pl.Int64}
)  # fmt: skip
_RANK_PAIRS: Final = 16  # fewer pairs than these are scored before another rank has loaded the model


def score(
    work: Workspace, model: Path, rows: Path, out: Path, *, precision: Precision, ranks: int,
    tokens_per_pack: int | None, only: Sequence[int] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Score the rows (or those numbered in `only`) under `model` and write them to `out`.

    What an interrupted scoring has done is found again in the work folder's partial. Returns counts: `scored` pairs
    and the `tokens` of their completions.

    Raises StageFailed (or TransientStageFailure) naming the log, or the pair whose log-prob is not a finite number.
    """
    pair_ids = read_token_rows(rows).get_column("pair_id")
    wanted = list(range(len(pair_ids))) if only is None else list(only)
    folder = work.partial / f"scoring-{out.stem}"
    parts = folder / "parts"
    _forget_if_other(folder, {"model": _stamp(model), "rows": _stamp(rows), "precision": precision})
    done = _read_parts(parts)
    missing = sorted(set(wanted) - set(done.get_column("row")))
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "only.npy", np.array(missing, dtype=np.int64))
        packed = tokens_per_pack or (BF16_TOKENS_PER_PACK if precision == "bf16" else None)
        job = ScoreJob(model, rows, folder / "only.npy", parts, folder, precision, packed)
        job.write(folder / "job.json")
        outcome = run_ranks(
            work, "training.score", folder / "job.json", folder,
            ranks=max(1, min(ranks, len(missing) // _RANK_PAIRS)), log_file=folder / "score.log",
        )  # fmt: skip
        work.provenance |= {f"scoring_{out.stem}": outcome.facts}
        done = _read_parts(parts)
    scored = done.filter(pl.col("row").is_in(wanted)).sort("row")
    if scored.height != len(wanted):
        raise StageFailed(
            f"{work.stage}: {len(wanted) - scored.height} pairs were not scored (log: {folder}/score.log)"
        )
    scored = scored.select(pair_ids.gather(scored.get_column("row")), *PARTS_SCHEMA.names()[1:])
    bad = scored.filter(~pl.all_horizontal(pl.col("chosen_logps", "rejected_logps").is_finite()))
    if bad.height:
        first = bad.row(0, named=True)["pair_id"]
        raise StageFailed(
            f"{work.stage}: the log-prob of pair {first} under {model} is not a finite number, nor are those of "
            f"{bad.height - 1} other pairs; look for broken weights"
        )
    scored.write_parquet(out)
    tokens = int(scored.select(pl.col("chosen_tokens").sum() + pl.col("rejected_tokens").sum()).item() or 0)
    return {"scored": scored.height, "tokens": tokens}


def _read_parts(parts: Path) -> pl.DataFrame:
    """What is scored already; a part file that a crash of the machine tore counts for nothing."""
    frames = [pl.DataFrame(schema=PARTS_SCHEMA)]
    for path in sorted(parts.glob("*.parquet")):
        try:
            frames.append(pl.read_parquet(path).cast(PARTS_SCHEMA))
        except (OSError, PolarsError):
            path.unlink()
    return pl.concat(frames).unique("row", keep="first", maintain_order=True)


def _stamp(folder: Path) -> list[list[str | int]]:
    """Names, sizes and times of the files of a stage folder: another build of the same stage has other times."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [[path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns] for path, facts in files]


def _forget_if_other(folder: Path, of: dict[str, object]) -> None:
    """Remove parts that were scored from other inputs: a forced stage keeps its name and may change its bytes."""
    note, text = folder / "inputs.json", json.dumps(of, sort_keys=True)
    if not note.exists() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(text, encoding="utf-8")
