"""The columns of posts and users, and what is wrong with rows that become neither.

in   rows of Posts.xml or Users.xml as columns of text
out  posts (questions and answers) or users, typed; faulty rows with a reason; a count of each reason
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

import polars as pl

from tasks.pairs import DROPPED_SCHEMA, UTC_MS

QUESTION: Final = 1
ANSWER: Final = 2
# Put into every dump since about 2025 to catch copies: no such posts exist (meta.stackexchange.com/q/412018).
FABRICATED: Final = (1_000_000_001, 1_000_000_010)
# Stack Exchange takes 30,000 characters of Markdown (65,536 on Code Golf): no true post is longer as HTML.
MAX_BODY: Final = 1_000_000

POST_ATTRIBUTES: Final = (
    "Id", "PostTypeId", "ParentId", "AcceptedAnswerId", "Score", "CreationDate", "LastEditDate", "ClosedDate",
    "CommunityOwnedDate", "Title", "Tags", "OwnerUserId", "OwnerDisplayName", "ContentLicense", "Body",
)  # fmt: skip
USER_ATTRIBUTES: Final = ("Id", "DisplayName")  # the rest of a profile is nobody's business here

_POST_COLUMNS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "site": pl.String,
    "id": pl.Int64,
    "post_type": pl.Int8,  # 1 question, 2 answer
    "parent_id": pl.Int64,  # an answer's question
    "accepted_id": pl.Int64,  # of a question
    "score": pl.Int64,  # net votes
    "created": UTC_MS,
    "edited": UTC_MS,
    "closed": UTC_MS,
    "community_owned": UTC_MS,
    "title": pl.String,
    "tags": pl.List(pl.String),
    "owner_id": pl.Int64,  # absent for deleted users, -1 for Community
    "owner_name": pl.String,  # as on the row, mostly for deleted users
    "license": pl.String,  # as on the row, null before 2020
    "body": pl.String,  # HTML
    "offset": pl.Int64,  # bytes into Posts.xml
}
POST_SCHEMA: Final = pl.Schema(_POST_COLUMNS)
USER_SCHEMA: Final = pl.Schema({"user_id": pl.Int64(), "name": pl.String()})
# Of a dropped row: where it stands, and the beginning of what was wrong with it.
FAULT_SCHEMA: Final = pl.Schema([*DROPPED_SCHEMA.items(), ("post_id", pl.Int64()), ("value", pl.String())])

PLANNED: Final = ("post_type", "fabricated")
FAULTS: Final = ("bad_type", "bad_id", "bad_score", "bad_date", "bad_character", "too_long", "duplicate_id", "orphan")
"""Why a row is skipped. bad_*: absent or malformed; orphan: an answer whose question is not in the file."""


class Typed(NamedTuple):
    """What one range gave."""

    table: pl.DataFrame
    faults: pl.DataFrame  # row (index into the range), reason, post_id, value
    skipped: dict[str, int]


def type_posts(columns: dict[str, pl.Series], site: str) -> Typed:
    """Posts of `site` from the attributes of rows."""
    raw = pl.DataFrame(columns)
    dates = _dates(raw, "CreationDate", "LastEditDate", "ClosedDate", "CommunityOwnedDate")
    number = {
        name: pl.col(name).cast(pl.Int64, strict=False)
        for name in ("Id", "PostTypeId", "ParentId", "AcceptedAnswerId", "Score", "OwnerUserId")
    }
    typed = raw.with_row_index("row").select(
        "row",
        site=pl.lit(site, pl.String),
        id=number["Id"],
        post_type=number["PostTypeId"],
        parent_id=number["ParentId"],
        accepted_id=number["AcceptedAnswerId"],
        score=number["Score"],
        created=dates["CreationDate"],
        edited=dates["LastEditDate"],
        closed=dates["ClosedDate"],
        community_owned=dates["CommunityOwnedDate"],
        title="Title",
        tags=pl.col("Tags").fill_null("").str.extract_all(r"[^<>|]+"),  # <a><b> to 2023, |a|b| since
        owner_id=number["OwnerUserId"],
        owner_name=_text("OwnerDisplayName"),
        license=_text("ContentLicense"),
        body=pl.col("Body").fill_null(""),
        offset="offset",
        too_long=_longer("Body", MAX_BODY),
        bad_id=pl.any_horizontal(
            pl.col(name).is_not_null() & number[name].is_null()
            for name in ("ParentId", "AcceptedAnswerId", "OwnerUserId")
        ),
        bad_date=pl.any_horizontal(
            pl.col(name).is_not_null() & pl.lit(dates[name]).is_null()
            for name in ("LastEditDate", "ClosedDate", "CommunityOwnedDate")
        ),
    )
    judged = typed.with_columns(
        reason=pl.when(pl.col("post_type").is_null()).then(pl.lit("bad_type"))
        .when(~pl.col("post_type").is_in([QUESTION, ANSWER])).then(pl.lit("post_type"))
        .when(pl.col("id").is_null() | (pl.col("id") < 1)).then(pl.lit("bad_id"))
        .when(pl.col("id").is_in(FABRICATED)).then(pl.lit("fabricated"))
        .when(pl.col("bad_id")).then(pl.lit("bad_id"))
        .when((pl.col("post_type") == ANSWER) & pl.col("parent_id").is_null()).then(pl.lit("orphan"))
        .when(pl.col("score").is_null()).then(pl.lit("bad_score"))
        .when(pl.col("created").is_null() | pl.col("bad_date")).then(pl.lit("bad_date"))
        .when(pl.col("too_long")).then(pl.lit("too_long"))
    )  # fmt: skip
    return _split(judged, raw, POST_SCHEMA)


def type_users(columns: dict[str, pl.Series], _site: str) -> Typed:
    """Users from the attributes of rows. A profile without a name or a number is no fault of a post: it is left out."""
    raw = pl.DataFrame(columns)
    typed = raw.with_row_index("row").select(
        "row", user_id=pl.col("Id").cast(pl.Int64, strict=False), name=_text("DisplayName")
    )
    nameless = pl.col("user_id").is_null() | pl.col("name").is_null()
    judged = typed.with_columns(reason=pl.when(nameless).then(pl.lit("nameless")))
    return _split(judged, raw, USER_SCHEMA)


def _split(judged: pl.DataFrame, raw: pl.DataFrame, schema: pl.Schema) -> Typed:
    skipped = dict(judged["reason"].drop_nulls().value_counts().iter_rows())
    table = judged.filter(pl.col("reason").is_null()).select(schema.names()).cast(schema)
    bad = judged.filter(pl.col("reason").is_in(FAULTS))
    shown = {"bad_type": "PostTypeId", "bad_id": "Id", "bad_score": "Score", "bad_date": "CreationDate"}
    value = pl.coalesce(
        pl.lit(None, pl.String),
        *(
            pl.when(pl.col("reason") == reason).then(raw[name].gather(bad["row"]).fill_null("").str.slice(0, 80))
            for reason, name in shown.items()
            if name in raw.columns
        ),
    )
    post_id = pl.col("id") if "id" in bad.columns else pl.lit(None, pl.Int64)
    faults = bad.select("row", "reason", post_id=post_id, value=value)
    return Typed(table, faults, skipped)


def _dates(raw: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The columns as dates; null what is none, or is outside of what any calendar of ours can hold."""
    parsed = raw.select(
        pl.col(*names).str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="ms", time_zone="UTC", cache=False
        )
    )
    first, last = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    return parsed.select(pl.when(pl.col(name).is_between(first, last)).then(pl.col(name)).alias(name) for name in names)


def _longer(name: str, characters: int) -> pl.Expr:
    """Whether the attribute has more characters; they are counted only where its bytes leave that open."""
    return pl.when(pl.col(name).str.len_bytes() > characters).then(pl.col(name)).str.len_chars() > characters


def _text(name: str) -> pl.Expr:
    """The attribute stripped, null where nothing is left."""
    stripped = pl.col(name).str.strip_chars()
    return pl.when(stripped != "").then(stripped)
