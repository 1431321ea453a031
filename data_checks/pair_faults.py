"""What no pair may be, whatever stage made it: said once, counted at each boundary. Never looks at the texts."""

from typing import Final

import polars as pl

from data_checks.faults import Fault

_IDS: Final = ("question_id", "chosen_id", "rejected_id")

FAULTS: Final = (
    Fault("no_pair_id", pl.col("pair_id").is_null(), "Every later stage finds a pair by its id."),
    Fault(
        "no_site",
        pl.col("site").is_null() & pl.col("question_id").is_not_null(),
        "Ids are unique only within a site.",
    ),
    Fault(
        "not_preferred",
        pl.col("chosen_rank") <= pl.col("rejected_rank"),
        "A tie is not a preference, and the better answer comes first.",
    ),
    Fault("same_answer", pl.col("chosen_id") == pl.col("rejected_id"), "An answer cannot be better than itself."),
    Fault(
        "ids_incomplete",
        (pl.col("chosen_id").is_null() != pl.col("rejected_id").is_null())
        | (pl.col("chosen_id").is_not_null() & pl.col("question_id").is_null()),
        "A source has ids for both answers or for none, and for these only with their question's.",
    ),
    Fault(
        "misnamed",
        pl.col("pair_id") != pl.format("{}/{}/{}/{}", "site", *_IDS),
        "Where posts have ids, the pair's id is made of them.",
    ),
    Fault(
        "both_accepted",
        pl.col("chosen_accepted") & pl.col("rejected_accepted"),
        "A question has one accepted answer at most.",
        severity="warning",
    ),
    Fault(
        "no_license",
        pl.any_horizontal(pl.col(f"{post}_license").is_null() for post in ("question", "chosen", "rejected")),
        "What is published names the licence of each post.",
        severity="warning",
    ),
    Fault(
        "answered_before_asked",
        (pl.col("chosen_created") < pl.col("created")) | (pl.col("rejected_created") < pl.col("created")),
        "Answers follow their question; merged questions are the exception.",
        severity="warning",
        share=0.01,
    ),
)

COLUMNS: Final = (
    "pair_id", "site", *_IDS, "chosen_rank", "rejected_rank", "chosen_accepted", "rejected_accepted",
    "question_license", "chosen_license", "rejected_license", "created", "chosen_created", "rejected_created",
)  # fmt: skip


def duplicate_id(severity: str) -> Fault:
    """The fault of a row whose pair_id another row has too."""
    return Fault(
        "duplicate_id", pl.col("pair_id").is_duplicated(), "An id that names two rows is looked up wrongly.", severity
    )
