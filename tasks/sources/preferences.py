"""The form of HuggingFaceH4/stack-exchange-preferences: a question and its answers a row -> posts, as of a dump.

in   qid, question, answers [{answer_id, author, author_id, pm_score, selected, text}], date, metadata; texts are HTML
out  posts.parquet/SITE/part-*.parquet   columns of tasks/sources/posts.py and `rank`, sorted by id
     users.parquet/                      no row: authors' names stand on the posts
     dropped.parquet                     reason, place, post_id

The set tells ranks (`pm_score`) and no votes. They are handed on as ranks, and pairs are made of them by the `pair`
stage as of a dump's: the same cap, the same draw of candidates, and only their HTML is converted. Votes, dates of
answers and names of askers are not told and stay null.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from tasks.manifest import reasons
from tasks.ordered import batches, write_ordered
from tasks.sources import question_facts
from tasks.sources.json_rows import Row
from tasks.sources.pair_rows import Rejected, storable
from tasks.sources.posts import ANSWER, FAULT_SCHEMA, MAX_BODY, POST_SCHEMA, QUESTION, USER_SCHEMA
from tasks.sources.ranges import write_part
from tasks.sources.settle import removals
from tasks.sources.skipped import Skipped
from tasks.store import Workspace

TEXTS: Final = ("question", "answers")
COLUMNS: Final = (*TEXTS, *question_facts.COLUMNS)
RANKED_SCHEMA: Final = pl.Schema([*POST_SCHEMA.items(), ("rank", pl.Int64())])
REASONS: Final = (
    "malformed", "too_long", "bad_type", "bad_id", "bad_score", "bad_character", "no_site", "several_accepted",
    "duplicate_id", "orphan",
)  # fmt: skip
"""Why posts are skipped. A question takes its answers with it, and they are counted under its reason."""

_PART: Final = 4_000  # posts of one site held at a time
_HELD: Final = 20_000  # posts of all sites held at a time
_PUBLISHED: Final = 50_000  # posts of a published part: what one worker converts at a time
_INT64: Final = 2**63
_SCRATCH_SCHEMA: Final = pl.Schema([*RANKED_SCHEMA.items(), ("place", pl.String())])


def read_preferences(rows: Iterator[Row], site: str | None, work: Workspace) -> dict[str, int]:
    """Fill the stage folder with posts; the counts of `ingest`: `rows = questions + answers + skipped.*`.

    A row of the source counts as many rows as it holds posts. `site` stands in where a row does not name one.
    """
    folder = work.partial / "preferences"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    spread = _Spread(folder)
    for number, row in enumerate(rows, start=1):
        spread.take(row, site)
        if number % 1_000 == 0:
            work.progress(number, None, "questions")
    spread.flush(0)
    posts = work.folder / "posts.parquet"
    posts.mkdir()
    tally = Counter[int]()
    late = [pl.DataFrame(schema=FAULT_SCHEMA)]
    for parts in sorted((folder / "sites").iterdir()):
        late.append(_publish(parts, posts / parts.name, folder / "scratch", tally))
    sites = sorted(place.name for place in posts.iterdir())
    if not sites:  # a table without rows is a table, too
        (posts / "none").mkdir()
        write_part(pl.DataFrame(schema=RANKED_SCHEMA), posts / "none" / "part-00000.parquet")
    (work.folder / "users.parquet").mkdir()
    write_part(pl.DataFrame(schema=USER_SCHEMA), work.folder / "users.parquet" / "part-00000.parquet")
    work.provenance["source"] = work.provenance.get("source", {}) | {"sites": sites}
    spread.skipped.write(work.folder / "dropped.parquet", pl.concat(late, how="diagonal"))
    skipped = spread.skipped.tally
    return {
        "rows": sum(tally.values()) + sum(skipped.values()),
        "questions": tally[QUESTION],
        "answers": tally[ANSWER],
        **reasons("skipped", REASONS, skipped),
    }


class _Spread:
    """Posts as they come, written to parts by site."""

    def __init__(self, folder: Path) -> None:
        self.skipped = Skipped(folder / "skipped")
        self._folder = folder / "sites"
        self._held: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._count = 0
        self._parts = Counter[str]()
        self._folder.mkdir()

    def take(self, row: Row, site: str | None) -> None:
        """Keep the posts in a row, and the reason for each that is none."""
        if row.fault is not None:
            self.skipped.add(row.fault, row.place)
            return
        answers = row.values.get("answers")
        try:
            question = _question(row.values, site)
        except Rejected as rejected:
            self.skipped.add(rejected.reason, row.place, _id(row.values, "qid"))
            for answer in answers if isinstance(answers, list) else ():
                self.skipped.add(rejected.reason, row.place, _id(answer, "answer_id"))
            return
        posts = [question]
        for answer in row.values["answers"]:
            try:
                posts.append(_answer(answer, question))
            except Rejected as rejected:
                self.skipped.add(rejected.reason, row.place, _id(answer, "answer_id"))
        held = self._held[question["site"]]
        held += [post | {"place": row.place} for post in posts]
        self._count += len(posts)
        if len(held) >= _PART:
            self._write(question["site"])
        elif self._count >= _HELD:
            self.flush(_HELD // 2)

    def flush(self, most: int) -> None:
        """Write what is held, the sites with the most posts first, until not more than `most` are."""
        for site in sorted(self._held, key=lambda site: (-len(self._held[site]), site)):
            if self._count > most:
                self._write(site)

    def _write(self, site: str) -> None:
        folder = self._folder / site
        folder.mkdir(exist_ok=True)
        posts = self._held.pop(site)
        self._count -= len(posts)
        write_part(pl.DataFrame(posts, schema=_SCRATCH_SCHEMA), folder / f"{self._parts[site]:06d}.parquet")
        self._parts[site] += 1


def _question(row: Mapping[str, Any], site: str | None) -> dict[str, Any]:
    """The question of a row as a post; Rejected where it makes no post or its answers are no list."""
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise Rejected("bad_type")
    facts = question_facts.question_facts(row, site)
    if facts.site is None:
        raise Rejected("no_site")
    if facts.question_id is None or facts.question_id < 1:
        raise Rejected("bad_id")
    accepted = [answer.get("answer_id") for answer in answers if answer.get("selected") is True]
    if len(accepted) > 1:
        raise Rejected("several_accepted")
    return {
        "site": facts.site, "id": facts.question_id, "post_type": QUESTION,
        "accepted_id": _id({"answer_id": accepted[0]}, "answer_id") if accepted else None,
        "created": facts.created, "owner_id": facts.author_id, "body": _body(row.get("question")),
    }  # fmt: skip


def _answer(answer: Mapping[str, Any], question: Mapping[str, Any]) -> dict[str, Any]:
    number, rank = _id(answer, "answer_id"), answer.get("pm_score")
    if number is None or number < 1:
        raise Rejected("bad_id")
    if isinstance(rank, bool) or not isinstance(rank, int) or not -_INT64 <= rank < _INT64:
        raise Rejected("bad_score")
    author = answer.get("author")
    named = isinstance(author, str) and author.strip() != "" and storable(author)
    return {
        "site": question["site"], "id": number, "post_type": ANSWER, "parent_id": question["id"],
        "owner_id": _id(answer, "author_id"), "owner_name": str(author).strip() if named else None,
        "body": _body(answer.get("text")), "rank": rank,
    }  # fmt: skip


def _id(row: Mapping[str, Any], name: str) -> int | None:
    given = row.get(name) if isinstance(row, dict) else None
    if isinstance(given, bool) or not isinstance(given, int) or not -_INT64 <= given < _INT64:
        return None
    return given


def _body(given: object) -> str:
    if not isinstance(given, str):
        raise Rejected("bad_type")
    if len(given) > MAX_BODY:
        raise Rejected("too_long")
    if not storable(given):
        raise Rejected("bad_character")
    return given


def _publish(parts: Path, folder: Path, scratch: Path, tally: Counter[int]) -> pl.DataFrame:
    """The posts of one site in the order of their numbers, each number once; the rows left out, as dropped rows."""
    paths = sorted(parts.iterdir())
    gone = removals(paths, pl.scan_parquet(paths).select(pl.len()).collect().item())
    narrow = pl.concat(
        pl.read_parquet(path, columns=["id", "post_type", *(["place"] if gone.height else [])])
        .with_row_index("row")
        .with_columns(part=pl.lit(number, pl.Int64))
        for number, path in enumerate(paths)
    ).with_row_index("number")
    kept = narrow.join(gone, on=["part", "row"], how="anti").sort("id")
    tally.update(dict(kept["post_type"].value_counts().iter_rows()))
    if kept.height:
        folder.mkdir()
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "order").mkdir(parents=True)
        order = kept["number"].cast(pl.Int64).to_numpy()
        write_ordered(parts, scratch / "posts.parquet", order, RANKED_SCHEMA, scratch / "order")
        _cut_up(scratch / "posts.parquet", folder)
    if gone.is_empty():
        return gone.select("reason", "post_id")
    left_out = narrow.join(gone, on=["part", "row"]).sort("part", "row")
    return left_out.select("reason", "place", "post_id")


def _cut_up(whole: Path, folder: Path) -> None:
    """The table `whole` as parts of `_PUBLISHED` posts."""
    held: list[pl.DataFrame] = []
    part = 0
    for batch in batches(whole):
        held.append(batch)
        if sum(frame.height for frame in held) >= _PUBLISHED:
            write_part(pl.concat(held).rechunk(), folder / f"part-{part:05d}.parquet")
            held, part = [], part + 1
    if held:
        write_part(pl.concat(held).rechunk(), folder / f"part-{part:05d}.parquet")
