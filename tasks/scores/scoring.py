"""Scoring: token rows and a model -> summed log-probs of every completion, computed by processes of their own.

in   pair_id, prompt_ids, chosen_ids, rejected_ids              a `datasets` folder
out  pair_id, chosen_logps, rejected_logps, chosen_tokens, rejected_tokens   parquet, in the order of the rows
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from tasks.errors import StageFailed
from tasks.scores.ranks import run_ranks
from tasks.store import Workspace
from tasks.tokens.token_rows import read_token_rows
from training.config import Precision
from training.jobs import RowSet, ScoreJob

# In bf16 a value depends on what it is packed with, so that a policy trained in packs wants a reference scored in
# packs; in fp32 it does not beyond 1e-6, and a pair alone has the same bits in every sample.
BF16_TOKENS_PER_PACK: Final = 8192
PARTS_SCHEMA: Final = pl.Schema(
    {"row": pl.Int64, "chosen_logps": pl.Float64, "rejected_logps": pl.Float64, "chosen_tokens": pl.Int64,
     "rejected_tokens": pl.Int64}
)  # fmt: skip
_RANK_PAIRS: Final = 16  # fewer pairs than these are scored before another rank has loaded the model


class Wanted(NamedTuple):
    """What is to be scored."""

    rows: Path
    out: Path
    only: Sequence[int] | None = None
    """Numbers of the rows; None for all."""
    tail_weight: float = 1.0
    """Weight of the tokens beyond the length of the pair's shorter side (LD-DPO); 1 gives plain sums."""
    by_question: bool = False
    """Whether pairs of one question are scored together, each of their answers once: less work, and values that change
    by rounding with the pairs that are scored with them."""


def score(
    work: Workspace, model: Path, rows: Path, out: Path, *, precision: Precision, ranks: int,
    tokens_per_pack: int | None,
) -> dict[str, int]:  # fmt: skip
    """`score_all` for one set of rows."""
    return score_all(
        work, model, [Wanted(rows, out)], precision=precision, ranks=ranks, tokens_per_pack=tokens_per_pack
    )


def score_all(
    work: Workspace, model: Path, sets: Sequence[Wanted], *, precision: Precision, ranks: int,
    tokens_per_pack: int | None,
) -> dict[str, int]:  # fmt: skip
    """Score the rows of every set under `model` and write each set to its file.

    What an interrupted scoring has done is found again in the partial folder. A file whose set holds no row is
    written too. Returns counts: `scored` pairs and the `tokens` of their completions.

    Raises StageFailed (or TransientStageFailure) naming the log, or the pair whose log-prob is not a finite number.
    """
    folder = work.partial / "scoring"
    _forget_if_other(folder, _inputs(model, sets, precision))
    open_sets: list[RowSet] = []
    left = 0
    for one in sets:
        done = set(_read_parts(_parts(folder, one)).get_column("row"))
        if missing := sorted(set(_numbers(one)) - done):
            only = folder / f"{one.out.stem}.npy"
            np.save(only, np.array(missing, dtype=np.int64))
            open_sets.append(RowSet(one.rows, only, _parts(folder, one), one.tail_weight, one.by_question))
            left += len(missing)
    if open_sets:
        packed = tokens_per_pack or BF16_TOKENS_PER_PACK if precision == "bf16" else None
        ScoreJob(model, tuple(open_sets), folder, precision, packed).write(folder / "job.json")
        outcome = run_ranks(
            work, "training.score", folder / "job.json", folder,
            ranks=max(1, min(ranks, left // _RANK_PAIRS)), log_file=folder / "score.log",
        )  # fmt: skip
        work.provenance |= {"scoring": outcome.facts}
    counts = {"scored": 0, "tokens": 0}
    for one in sets:
        frame = _collected(work, one, _read_parts(_parts(folder, one)), model)
        frame.write_parquet(one.out)
        counts["scored"] += frame.height
        counts["tokens"] += sum(int(frame.get_column(f"{side}_tokens").sum()) for side in ("chosen", "rejected"))
    return counts


def _collected(work: Workspace, one: Wanted, parts: pl.DataFrame, model: Path) -> pl.DataFrame:
    """The log-probs of one set in the order of its rows, all there and finite."""
    wanted = pl.DataFrame({"row": _numbers(one)}, schema={"row": pl.Int64})
    scored = wanted.join(parts, on="row", how="left", maintain_order="left")
    pair_ids = read_token_rows(one.rows).get_column("pair_id")
    scored = scored.select(pair_ids.gather(scored.get_column("row")), *PARTS_SCHEMA.names()[1:])
    bad = scored.filter(~pl.all_horizontal(pl.col("chosen_logps", "rejected_logps").is_finite().fill_null(False)))
    if bad.height:
        raise StageFailed(
            f"{work.stage}: under {model} the log-probs of {bad.height} of {scored.height} pairs are not finite, "
            f"the first of them those of pair {bad['pair_id'][0]}; look for broken weights"
        )
    return scored


def _numbers(one: Wanted) -> list[int]:
    return list(range(read_token_rows(one.rows).height)) if one.only is None else list(one.only)


def _parts(folder: Path, one: Wanted) -> Path:
    return folder / f"{one.out.stem}-parts"


def _read_parts(parts: Path) -> pl.DataFrame:
    """What is scored already; a part file that a crash of the machine tore counts for nothing."""
    frames = [pl.DataFrame(schema=PARTS_SCHEMA)]
    for path in sorted(parts.glob("*.parquet")):
        try:
            frames.append(pl.read_parquet(path).cast(PARTS_SCHEMA))
        except (OSError, PolarsError):
            path.unlink()
    return pl.concat(frames).unique("row", keep="first", maintain_order=True)


def _inputs(model: Path, sets: Sequence[Wanted], precision: Precision) -> dict[str, object]:
    """What scored parts were made of."""
    return {"model": _stamp(model), "rows": [_stamp(one.rows) for one in sets], "precision": precision}


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
