"""Pair: posts -> pairs of answers to one question, the better one first.

in   posts.parquet     questions and answers of each source, in a folder a site where it has several
     pairs.parquet     in place of it, of a source that has no posts: taken over under the same cap and least gap
out  pairs.parquet     one row a pair, the columns of tasks/pairs.py, sorted by site, question, chosen and rejected
     dropped.parquet   pair_id, reason, place

Which switches there are, and in what order they are asked, says tasks/pairing/pair_config.py.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from tasks.errors import RecipeError
from tasks.keyed import keyed_ranks
from tasks.manifest import Manifest, reasons
from tasks.pairing.assemble import TEXT_FAULTS, assemble, dropped_pairs, pair_place
from tasks.pairing.candidates import Chosen, Rules, choose, lowest
from tasks.pairing.conversion import convert_all
from tasks.pairing.excluded import Excluded, read_excluded
from tasks.pairing.given_pairs import Given, given_pairs
from tasks.pairing.pair_config import PairConfig
from tasks.pairing.personal import PLACEHOLDERS, masked_pairs
from tasks.pairing.text_switches import KNOWN_LANGUAGES
from tasks.pairing.wanted import Part
from tasks.pairs import DROPPED_SCHEMA, PAIR_SCHEMA, pair_id_expr
from tasks.store import Store, Workspace
from tasks.workers import MAX_WORKERS, cores

VERSION = 6  # bump when the bytes this stage writes would change

BATCH: Final = 20_000  # pairs whose texts are held at once: about 200 MB
HELD: Final = 256_000_000  # bytes of pairs that wait in memory for the others; those beyond it wait in files
_ALWAYS: Final = ("min_gap", "duplicate_id", *TEXT_FAULTS)  # counted though they be 0; switches where they are on


def pair(store: Store, sources: Sequence[Manifest], config: PairConfig, seed: int) -> Manifest:
    """The pairs of all sources.

    RecipeError when two sources have posts of one site, since their pairs would have the same names; when pairs are to
    be ranked by votes and a source has none; and when a language is named that cannot be told.
    """
    for source in sources:
        if source.config.get("kind") == "preferences" and config.rule != "pm":
            raise RecipeError(
                f"pair.rule is {config.rule}, but a source of kind preferences tells pm_score and no votes: use pm"
            )
    sites = Counter(source.config["site"] for source in sources if source.config.get("kind") == "dump")
    for site, times in sites.items():
        if times > 1:
            raise RecipeError(f"ingest.sources: {times} of them are dumps of {site}; leave one")
    if config.languages and (unknown := sorted(set(config.languages) - KNOWN_LANGUAGES)):
        raise RecipeError(f"recipe key 'pair.languages': {unknown[0]!r} is no language that can be told: leave it out")
    inputs = {f"source-{source.fingerprint}": source for source in sources}

    def build(work: Workspace) -> dict[str, int]:
        return _Pairing(work, config, seed).run(sources)

    return store.stage("pair", VERSION, config.identity() | {"seed": seed}, inputs, build)


@dataclass(frozen=True)
class _Site:
    """The posts of one site."""

    site: str
    posts: Path
    users: Path


class _Pairing:
    """One run of the stage: parts of the two output files, in order, and the counts."""

    def __init__(self, work: Workspace, config: PairConfig, seed: int) -> None:
        self._work = work
        self._config = config
        self._seed = seed
        self._counts = Counter[str]()
        self._parts: dict[str, list[pl.LazyFrame]] = {"pairs": [], "dropped": []}
        self._held = 0

    def run(self, sources: Sequence[Manifest]) -> dict[str, int]:
        """Fill the stage folder; the counts of `pair`."""
        sites = _sites(sources)
        others = sorted(
            (source for source in sources if source.path("pairs.parquet").exists()),
            key=lambda source: source.fingerprint,
        )
        config = self._config
        excluded = read_excluded(config.exclude)
        switches = config.switches(excluded)
        rules = Rules(config.rule, config.max_pairs_per_question, config.candidates, self._seed, switches)
        chosen = Chosen()
        for site in sites:
            self._work.message(f"pairing {site.site}")
            excluded.meet(site.site, pl.scan_parquet(site.posts / "*.parquet"))
            choose(site.posts, site.site, rules, chosen, self._leave_out)
        given = given_pairs([source.path("pairs.parquet") for source in others], _names(chosen.pairs), rules)
        self._write("dropped", given.dropped)
        self._counts.update(given.counts + chosen.counts)
        pairs, taken = self._draw(chosen, given.sources)
        for site in sites:
            self._write_site(site, pairs.filter(pl.col("site") == site.site))
        for source in taken:
            self._write_given(source)
        self._join("pairs", PAIR_SCHEMA)
        self._join("dropped", DROPPED_SCHEMA)
        counts = self._counts
        drops = list(dict.fromkeys([*switches.on(), *_ALWAYS, *config.limits().on()]))
        return {
            "considered": counts["considered"],
            "ties": counts["ties"],
            "capped": counts["capped"],
            "not_candidate": counts["not_candidate"],
            **reasons("dropped", drops, {name: counts[f"dropped.{name}"] for name in drops}),
            "pairs": counts["pairs"],
            **self._takedown(excluded),
            **({f"masked.{kind}": counts[f"masked.{kind}"] for kind in PLACEHOLDERS} if config.mask_personal else {}),
        }

    def _leave_out(self, pairs: pl.DataFrame) -> None:
        self._write("dropped", dropped_pairs(pairs, pl.col("reason")))

    def _takedown(self, excluded: Excluded) -> dict[str, int]:
        """How many ids the recipe leaves out, and how many of them no source has."""
        if not excluded.names:
            return {}
        unmet = excluded.unmet
        if unmet:
            self._work.provenance["exclude_unmatched"] = unmet
            more = f" and {len(unmet) - 5} more" if len(unmet) > 5 else ""
            self._work.message(f"pair.exclude: no source has {', '.join(unmet[:5])}{more}")
        return {"exclude.ids": len(excluded.names), "exclude.unmatched": len(unmet)}

    def _draw(self, chosen: Chosen, taken: list[Given]) -> tuple[pl.DataFrame, list[Given]]:
        """What stays when candidates are drawn from all sources together, by the rank of their names."""
        number = self._config.candidates
        total = chosen.counts["candidates"] + sum(source.rows.height for source in taken)
        if number is not None and total > number and taken:
            names = [_names(chosen.pairs), *(source.rows["pair_id"] for source in taken)]
            ranked = pl.concat(
                pl.DataFrame({"name": name, "key": keyed_ranks(self._seed, "sample", name)}) for name in names
            ).sort("key", "name")
            kept = ranked["name"].head(number).implode()
            chosen.pairs = chosen.pairs.filter(names[0].is_in(kept))
            taken = [Given(source.path, source.rows.filter(pl.col("pair_id").is_in(kept))) for source in taken]
        drawn = lowest(chosen.pairs, number, self._seed, "sample")
        self._counts["not_candidate"] = total - drawn.height - sum(source.rows.height for source in taken)
        return drawn.sort("site", "question_id", "chosen_id", "rejected_id"), taken

    def _write_given(self, taken: Given) -> None:
        whole = pl.scan_parquet(taken.path).select(PAIR_SCHEMA.names())
        for start in range(0, taken.rows.height, BATCH):
            rows = taken.rows["row"].slice(start, BATCH)
            first = int(rows[0])
            there = whole.slice(first, int(rows[-1]) - first + 1).collect()
            places = rows.to_frame().select(place=pl.format("row {}", pl.col("row") + 1))["place"]
            self._write_texts(there[(rows - first).to_list()].cast(PAIR_SCHEMA), places)

    def _write_site(self, site: _Site, pairs: pl.DataFrame) -> None:
        """The pairs of one site: its posts converted where they are wanted, then put together a batch at a time."""
        if pairs.is_empty():
            return
        texts = self._convert(site, pairs)
        users = pl.scan_parquet(site.users / "*.parquet")
        for number in range(math.ceil(pairs.height / BATCH)):
            batch = pairs.slice(number * BATCH, BATCH)
            wanted = _posts_of(batch).implode()
            # The pairs are in the order of their questions, and so are the texts in each of their files.
            asked = pl.col("question_id").is_between(batch["question_id"][0], batch["question_id"][-1])
            near = pl.scan_parquet(texts).filter(asked).collect()
            found = near.filter(pl.col("id").is_in(wanted)).drop("question_id")
            owners = found["owner_id"].drop_nulls().unique()
            names = users.filter(pl.col("user_id").is_in(owners.implode())).collect()
            names = names.group_by("user_id").agg(pl.col("name").min())
            made = assemble(batch, found, names, include_title=self._config.include_title)
            self._drop(made.dropped)
            self._write_texts(made.pairs, made.pairs.select(place=pair_place())["place"])
            self._work.progress(min(pairs.height, (number + 1) * BATCH), pairs.height, "pairs")

    def _write_texts(self, pairs: pl.DataFrame, places: pl.Series) -> None:
        """The pairs that the switches for texts leave, masked where that is asked for; `places` is for the others."""
        if self._config.mask_personal:
            pairs, masked = masked_pairs(pairs)
        reasons = self._config.limits().reasons(pairs)
        stays = reasons.is_null()
        if self._config.mask_personal:
            for kind, number in masked.filter(stays).sum().row(0, named=True).items():
                self._counts[f"masked.{kind}"] += number or 0
        self._write("pairs", pairs.filter(stays))
        self._drop(pl.DataFrame({"pair_id": pairs["pair_id"], "reason": reasons, "place": places}).filter(~stays))

    def _drop(self, rows: pl.DataFrame) -> None:
        """Rows of dropped.parquet, counted."""
        self._write("dropped", rows)
        for reason, number in rows["reason"].value_counts().iter_rows():
            self._counts[f"dropped.{reason}"] += number

    def _convert(self, site: _Site, pairs: pl.DataFrame) -> list[Path]:
        folder = self._work.partial / f"markdown-{site.site}"
        folder.mkdir(exist_ok=True)
        wanted = pl.DataFrame({"id": _posts_of(pairs)})
        parts = [
            Part(posts=part, wanted=wanted, site=site.site, out=folder / part.name)
            for part in sorted(site.posts.glob("*.parquet"))
        ]
        self._work.message(f"converting posts of {site.site}")
        # Always another process: a library that panics on a text says so on the standard error of its own. And no more
        # than there are parts, whose texts take longer than a worker to start.
        workers = min(cores(), MAX_WORKERS)
        for done in convert_all(parts, workers, self._work.message):
            self._work.progress(done, len(parts), "parts")
        return [part.out for part in parts]

    def _write(self, table: Literal["pairs", "dropped"], rows: pl.DataFrame) -> None:
        """Put `rows` at the end of the output `table`."""
        if table == "pairs":
            self._counts["pairs"] += rows.height
        if rows.is_empty():
            return
        size = rows.estimated_size()
        if self._held + size <= HELD:
            self._held += int(size)
            self._parts[table].append(rows.lazy())
            return
        path = self._work.partial / f"{table}-{len(self._parts[table]):05d}.parquet"
        rows.write_parquet(path, compression="lz4", statistics=False)
        self._parts[table].append(pl.scan_parquet(path))

    def _join(self, table: Literal["pairs", "dropped"], schema: pl.Schema) -> None:
        """The output file of `table`: its parts one after another."""
        rows = pl.concat([pl.LazyFrame(schema=schema), *self._parts[table]])
        # Level 3 takes two thirds longer than 1 for a sixth less space.
        rows.sink_parquet(
            self._work.folder / f"{table}.parquet", compression="zstd", compression_level=1, row_group_size=BATCH,
            maintain_order=True,
        )  # fmt: skip


def _sites(sources: Sequence[Manifest]) -> list[_Site]:
    """The sites that there are posts of, by name."""
    found = []
    for source in sources:
        posts, users = source.path("posts.parquet"), source.path("users.parquet")
        if source.config.get("kind") == "dump":
            found.append(_Site(str(source.config["site"]), posts, users))
        elif posts.exists():
            found += [_Site(folder.name, folder, users) for folder in posts.iterdir() if any(folder.iterdir())]
    for site, times in Counter(place.site for place in found).items():
        if times > 1:
            raise RecipeError(f"ingest.sources: {times} of them have posts of {site}; leave one")
    return sorted(found, key=lambda place: place.site)


def _names(pairs: pl.DataFrame) -> pl.Series:
    """The names of candidate pairs."""
    return pairs.select(pair_id_expr().alias("pair_id"))["pair_id"]


def _posts_of(pairs: pl.DataFrame) -> pl.Series:
    """The ids of the posts in `pairs`, sorted, each once."""
    sides = [pairs[f"{side}_id"].alias("id") for side in ("question", "chosen", "rejected")]
    return pl.concat(sides).unique().sort()
