"""Dedupe: pairs -> pairs no two of which say the same thing, with a reason for every drop.

in   pairs.parquet
out  pairs.parquet     the same columns and `cluster`, in the order of pair_id
     dropped.parquet   pair_id, reason, place, kept_pair_id (null where no pair stays in its stead)

Pairs that share words with a benchmark's prompts go first, where the recipe names such: they keep nobody's place.

`cluster` is what a split must not divide: the smallest pair_id among the kept pairs that hang together through the same
(site, question_id), the same normalised prompt, or prompts or answers found to be near duplicates.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import Field

from tasks.config import StageConfig
from tasks.duplicates.clusters import components, names
from tasks.duplicates.exact_duplicates import (
    EXACT_REASONS,
    SAME_ID,
    dropped_rows,
    exact_reasons,
    kept_rows,
    keyed_rows,
    repeated_ids,
    text_keys,
)
from tasks.duplicates.jaccard import Int
from tasks.duplicates.minhash import Sketches
from tasks.duplicates.near_duplicates import near_texts
from tasks.duplicates.near_pairs import NEAR_REASONS, Levels, hubs, in_turn, near_reasons
from tasks.manifest import Manifest, reasons
from tasks.ordered import write_ordered
from tasks.pairing.contamination import CONTAMINATED, WORDS, DecontaminateConfig, benchmark_files, read_benchmark
from tasks.pairs import DEDUPED_SCHEMA
from tasks.store import External, Store, Workspace

VERSION = 1  # bump when the bytes this stage writes would change

REASONS: Final = (SAME_ID, *EXACT_REASONS, *NEAR_REASONS)


class DedupeConfig(StageConfig):
    """What counts as saying the same."""

    exact: bool = True
    """Drop a pair whose normalised prompt, chosen and rejected text another pair has."""
    near: bool = True
    """Look for near duplicates too (MinHash, verified by exact Jaccard), and drop them at the levels below."""
    threshold: float = Field(0.8, ge=0.1, le=1.0)
    """Jaccard similarity of word shingles (five words) from which two texts are near duplicates."""
    near_pairs: bool = True
    """Drop a pair of which all three texts are near duplicates of another pair's."""
    near_questions: bool = True
    """Drop the pairs of a question that is a near duplicate of another question."""
    near_answers: bool = True
    """Drop a pair whose chosen or rejected answer is a near duplicate of the same side under another question."""
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    """Drop pairs that share words with the prompts of benchmarks: {paths, column, ngram, answers}."""

    def identity(self) -> dict[str, Any]:
        """As of any stage, but nothing of where benchmarks lie, nor how they are read where there is none."""
        settings = super().identity()
        benchmarks = settings.pop("decontaminate")
        if benchmarks.pop("paths"):
            settings["decontaminate"] = benchmarks | {"words": WORDS}
        return settings


def dedupe(store: Store, pairs: Manifest, config: DedupeConfig, seed: int) -> Manifest:
    """The pairs that stay, each with the cluster that a split must not divide.

    A second row of the same pair_id goes whatever the config says: an id that names two rows would be looked up wrongly
    in every later stage.
    """

    files = benchmark_files(config.decontaminate, store.work_dir)
    inputs = {f"benchmark.{file.name}.{file.sha256[:8]}": External(file.sha256) for file in files}

    def build(work: Workspace) -> dict[str, int]:
        source = pairs.path("pairs.parquet")
        benchmark = read_benchmark(files, config.decontaminate) if files else None
        sketches = {kind: Sketches(_emptied(work, kind), config.threshold) for kind in ("prompt", "answer")}

        def on_texts(kind: str, texts: Mapping[bytes, str]) -> None:
            if config.near:
                sketches[kind].add(texts)
            if benchmark is not None and (kind == "prompt" or config.decontaminate.answers):
                benchmark.look(texts)

        keys = text_keys(source, on_texts if config.near or files else None)
        rows = keyed_rows(source, _reported(work, keys, pairs.counts.get("pairs")))
        verdicts = [repeated_ids(source, rows["pair_id"])]
        notes: pl.DataFrame | None = None
        if benchmark is not None:
            notes = benchmark.verdicts(kept_rows(rows, *verdicts), answers=config.decontaminate.answers)
            verdicts.append(notes.drop("note"))
        if config.exact:
            verdicts.append(exact_reasons(kept_rows(rows, *verdicts), seed))
        kept = kept_rows(rows, *verdicts)
        joined: list[Int] = []
        if config.near:
            work.message("comparing what may be near duplicates")
            kept = in_turn(kept, seed)
            prompts = near_texts(sketches["prompt"], kept, ("prompt",), source, config.threshold)
            answers = near_texts(sketches["answer"], kept, ("chosen", "rejected"), source, config.threshold)
            levels = Levels(config.near_pairs, config.near_questions, config.near_answers)
            verdicts.append(near_reasons(kept, prompts, answers, levels))
            _tell_crowds(work, prompts.left_out + answers.left_out)
            kept = kept_rows(rows, *verdicts)
        kept = kept.sort("pair_id")
        if config.near:
            joined = hubs(kept, prompts, answers)
        links = [kept.select("site", "question_id"), kept.select("prompt")]
        cluster = names(components(kept.height, links, joined), kept["pair_id"]).alias("cluster")

        judged = pl.concat(verdicts)
        dropped_rows(rows, judged, notes).write_parquet(work.folder / "dropped.parquet")
        order = kept["row"].cast(pl.Int64).to_numpy()
        scratch = _emptied(work, "order")
        write_ordered(source, work.folder / "pairs.parquet", order, DEDUPED_SCHEMA, scratch, cluster.to_frame())
        tally = dict(judged["reason"].value_counts().iter_rows())
        known = (*REASONS, CONTAMINATED) if files else REASONS
        return {"pairs": rows.height, "kept": kept.height, **reasons("dropped", known, tally)}

    return store.stage("dedupe", VERSION, {**config.identity(), "seed": seed}, {"pairs": pairs, **inputs}, build)


def _emptied(work: Workspace, name: str) -> Path:
    """A folder for what does not fit in memory. Nothing in it is worth keeping from an earlier try."""
    folder = work.partial / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _tell_crowds(work: Workspace, left_out: int) -> None:
    work.provenance["texts_not_compared_in_a_crowd"] = left_out
    if left_out:
        work.message(
            f"{left_out} times a text was not compared with all that it shares a band with: too many, too unlike"
        )


def _reported(work: Workspace, frames: Iterator[pl.DataFrame], total: int | None) -> Iterator[pl.DataFrame]:
    done = 0
    for frame in frames:
        yield frame
        done += frame.height
        work.progress(done, total, "pairs")
