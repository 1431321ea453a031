"""The examples of the report: held-out pairs with what the model makes of them, and answers side by side; all escaped.

in   Example, Answered (tasks/reports/story.py)
out  HTML
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.publication.attribution import author_url, post_url
from tasks.reports.escaping import as_html, excerpt, one_line
from tasks.reports.story import Answered, Example

SHOWN: Final = 3000  # characters of a text


def shown_examples(examples: Sequence[Example]) -> str:
    """All of them, one below the other."""
    if not examples:
        return "<p>There was no held-out pair to show.</p>"
    return '<p class="soft">Held-out pairs; training never saw these questions.</p>' + "".join(map(_example, examples))


def _example(example: Example) -> str:
    pair = example.pair
    right = "right" if example.margin > 0 else "wrong" if example.margin < 0 else "tied"
    sides = "".join(
        f'<div class="{side}"><b>{side.capitalize()}</b> {_credit(pair, side)}{_text(pair[side])}</div>'
        for side in ("chosen", "rejected")
    )
    return (
        f"<article><p><b>{right}</b>, margin {example.margin:.3f}, {as_html(example.why)}<br>"
        f"<code>{as_html(pair['pair_id'])}</code></p>"
        f"<div><b>Question</b> {_credit(pair, 'question')}{_text(pair['prompt'])}</div>"
        f'<div class="sides">{sides}</div></article>'
    )


def shown_answers(answers: Sequence[Answered]) -> str:
    """What both models write, one question below the other; nothing where neither was asked."""
    if not answers:
        return ""
    said = "<h3>Side by side</h3>" + '<p class="soft">Greedy answers to held-out questions, as they were drawn.</p>'
    return said + "".join(map(_answered, answers))


def _answered(answered: Answered) -> str:
    pair = answered.pair
    sides = "".join(
        f'<div class="{kind}"><b>{title}</b>{_text(text) if text.strip() else "<p>No text.</p>"}</div>'
        for kind, title, text in (
            ("rejected", "Start model", answered.start), ("chosen", "Tuned model", answered.tuned),
        )
    )  # fmt: skip
    return (
        f"<article><p><code>{as_html(pair['pair_id'])}</code></p>"
        f"<div><b>Question</b> {_credit(pair, 'question')}{_text(pair['prompt'])}</div>"
        f'<div class="sides">{sides}</div></article>'
    )


def _text(text: str) -> str:
    return f'<pre class="text">{as_html(excerpt(text, SHOWN))}</pre>'


def _credit(pair: Mapping[str, Any], who: str) -> str:
    """Votes, author, link and licence of one of the pair's three posts."""
    author = as_html(one_line(pair[f"{who}_author"])) if pair[f"{who}_author"] else "an unknown author"
    if (profile := author_url(pair["site"], pair[f"{who}_author_id"])) is not None:
        author = f'<a href="{as_html(profile)}">{author}</a>'
    link = post_url(pair["site"], who, pair[f"{who}_id"])
    votes = "" if pair[f"{who}_score"] is None else f"{pair[f'{who}_score']} votes, "
    licence = as_html(one_line(pair[f"{who}_license"])) if pair[f"{who}_license"] else "licence unknown"
    post = f', <a href="{as_html(link)}">post</a>' if link else ""
    return f'<span class="soft">{votes}by {author}, {licence}{post}</span>'
