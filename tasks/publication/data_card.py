"""The data card: what the training pairs are, as Markdown with plots beside it.

in   Told (tasks/reports/story.py), names of the plots that were drawn
out  text; every name and text from outside is escaped or fenced
"""

from collections.abc import Sequence
from typing import Any, Final

from tasks.publication.attribution import author_url, post_url
from tasks.publication.model_card import funnel_table, source_row
from tasks.publication.switches_shown import switches_shown
from tasks.reports.data_summary import QUANTILES
from tasks.reports.escaping import as_markdown, as_markdown_block, excerpt
from tasks.reports.figures import markdown_table, number, percent, setting
from tasks.reports.story import Told

EXCERPT: Final = 1200  # characters of a text shown

SHARES: Final = {
    "longer_tokens": "the chosen answer has more tokens",
    "longer_characters": "the chosen answer has more characters",
    "accepted": "the chosen answer, and it alone, was accepted",
    "earlier": "the chosen answer was posted first",
    "code": "a code block in question or answer",
    "chosen_cut": "the chosen answer was cut at the length limit",
    "rejected_cut": "the rejected answer was cut at the length limit",
}


def data_card(story: Told, plots: Sequence[str]) -> str:
    """The whole data_card.md; `plots` are paths from where it lies."""
    summary = story.summary
    pair = story.recipe.get("pair", {})
    parts = [
        f"# Training pairs of {as_markdown(story.name)}\n",
        f"{number(summary.pairs)} pairs of answers to {number(summary.questions)} questions. Two answers to one "
        f"question make a pair; the one that ranks higher under the rule `{as_markdown(str(pair.get('rule', 'pm')))}` "
        f"is chosen, and ties are dropped. At most {setting(pair.get('max_pairs_per_question'))} pairs a question.\n",
        "## From posts to pairs\n\n" + funnel_table(story),
        "## Switches\n\n" + _switches(story),
        "## Sources\n\n" + markdown_table(
            ("source", "counts", "checksum"), [source_row(source) for source in story.sources], numbers=False
        ),
        "## Sites, years, votes\n\n" + _counts(story),
        "## Lengths\n\n" + markdown_table(
            ("length", *(f"{level:.0%}" for level in QUANTILES)),
            [(name, *(number(value) for value in values)) for name, values in summary.lengths.items()],
        ),
        "## Habits of the pairs\n\n" + markdown_table(
            ("share of pairs in which", "share"),
            [(label, percent(summary.shares[name])) for name, label in SHARES.items() if name in summary.shares],
        ) + "\nA model can score by length, votes or order and understand nothing; evaluation has them as baselines.\n",
        "## Plots\n\n" + "".join(f"![{as_markdown(_caption(path))}]({path})\n\n" for path in plots) if plots else "",
        "## Licences\n\n" + markdown_table(
            ("licence", "how known", "posts"),
            [(as_markdown(name), basis, number(posts)) for name, basis, posts in summary.licenses],
        ) + "\n`attribution.csv` has link, author and licence of every post. They were changed: HTML was made Markdown"
        + (", personal data was masked" if pair.get("mask_personal") else "") + ".\n",
        "## Examples\n\n" + "\n".join(_example(pair) for pair in summary.examples),
    ]  # fmt: skip
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _switches(story: Told) -> str:
    """What was left out by a rule of the recipe beyond its ranking, and what that did to the texts and ids."""
    on = switches_shown(story.recipe)
    said = markdown_table(("switch", "value"), [(label, as_markdown(how)) for label, how in on], numbers=False)
    if not on:
        said = "None is on.\n"
    counts = story.side_counts
    if "exclude.ids" in counts:
        said += (
            f"\n{number(counts['exclude.ids'])} ids of posts, users and pairs are left out by name; "
            f"{number(counts['exclude.unmatched'])} of them no source has.\n"
        )
    masked = {name.removeprefix("masked."): count for name, count in counts.items() if name.startswith("masked.")}
    if masked:
        listed = ", ".join(f"{kind} {number(count)}" for kind, count in masked.items())
        said += f"\nMasked in the texts of all pairs, a text counted as often as pairs have it: {listed}.\n"
    return said


def _counts(story: Told) -> str:
    summary = story.summary
    sites = [(as_markdown(site), number(pairs), percent(pairs / summary.pairs)) for site, pairs in summary.sites[:30]]
    more = len(summary.sites) - len(sites)
    said = markdown_table(("site", "pairs", "share"), sites) + (f"\nand {more} more sites.\n" if more > 0 else "")
    if summary.years:
        said += "\n" + markdown_table(
            ("year of the question", "pairs"), [(str(year), number(n)) for year, n in summary.years]
        )
    if summary.score_gaps:
        said += "\n" + markdown_table(("votes, chosen minus rejected", "pairs"), [
            (label, number(pairs)) for label, pairs in summary.score_gaps
        ])  # fmt: skip
    return said


def _caption(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".png").replace("_", " ")


def _example(pair: dict[str, Any]) -> str:
    said = f"### {as_markdown(pair['pair_id'])}\n\n"
    for who, text, label in (
        ("question", "prompt", "Question"),
        ("chosen", "chosen", f"Chosen ({_votes(pair['chosen_score'])})"),
        ("rejected", "rejected", f"Rejected ({_votes(pair['rejected_score'])})"),
    ):
        said += f"{label}, {credit(pair, who)}:\n\n{as_markdown_block(excerpt(pair[text], EXCERPT))}\n\n"
    return said


def _votes(score: int | None) -> str:
    return "votes unknown" if score is None else f"{score} votes"


def credit(pair: dict[str, Any], who: str) -> str:
    """Author, link and licence of one of the pair's three posts (question, chosen, rejected), as CC BY-SA asks."""
    author = as_markdown(pair[f"{who}_author"]) if pair[f"{who}_author"] else "an unknown author"
    if (profile := author_url(pair["site"], pair[f"{who}_author_id"])) is not None:
        author = f"[{author}]({profile})"
    post = post_url(pair["site"], who, pair[f"{who}_id"])
    licence = as_markdown(pair[f"{who}_license"]) if pair[f"{who}_license"] else "licence unknown"
    return f"by {author}, {licence}" + (f", [post]({post})" if post else "")
