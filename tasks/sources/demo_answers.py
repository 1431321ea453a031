"""Questions and answers of the made site, put together sentence by sentence from keyed draws.

What is liked there is a matter of tone and substance, never of length: an answer is the one of many drafts that comes
closest to the length asked for, whichever voice it speaks in.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

from tasks.keyed import keyed_rank
from tasks.sources import demo_voices as voices
from tasks.sources.demo_faults import DETAILS, DISHES, FAULTS, LOGS, ROBOTS, SITE, Fault

DRAFTS: Final = 32  # of which the one nearest to the length asked for is posted
CHARS_A_TOKEN: Final = 4.3  # of what `length` counts as tokens, over both voices

Item = TypeVar("Item")


@dataclass(frozen=True)
class Draw:
    """Keyed choices: the same seed and names give the same choice, whatever else is drawn."""

    seed: int
    name: str

    def number(self, what: str, below: int) -> int:
        return keyed_rank(self.seed, "demo", f"{self.name}/{what}") % below

    def chance(self, what: str, percent: int) -> bool:
        return self.number(what, 100) < percent

    def one(self, what: str, items: Sequence[Item]) -> Item:
        return items[self.number(what, len(items))]

    def some(self, what: str, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items, in an order of their own."""
        return sorted(items, key=lambda item: self.number(f"{what}/{item}", 1 << 64))[:count]


class Block(NamedTuple):
    """A piece of a post. Lines may hold `code` in backticks and [links](to)."""

    kind: Literal["p", "ol", "pre"]
    lines: list[str]


class Topic(NamedTuple):
    """What a question is about."""

    fault: Fault
    robot: str
    dish: str

    def fill(self, sentence: str) -> str:
        return sentence.format(robot=self.robot, dish=self.dish)


def topic(seed: int, number: int) -> Topic:
    """The topic of question `number`: all differ until every robot has had every trouble with every dish."""
    size = len(FAULTS) * len(ROBOTS) * len(DISHES)
    # The stride has no factor in common with 16 * 12 * 22 and takes neighbours far apart.
    place = (keyed_rank(seed, "demo", "topics") + number * 1_613) % size
    place, fault = divmod(place, len(FAULTS))
    dish, robot = divmod(place, len(ROBOTS))
    return Topic(FAULTS[fault], ROBOTS[robot], DISHES[dish])


def question(about: Topic, draw: Draw) -> tuple[str, list[Block]]:
    """Title and body."""
    symptom = about.fill(draw.one("symptom", about.fault.symptoms))
    ask = about.fill(draw.one("ask", about.fault.asks))
    details = draw.some("details", DETAILS, 1 + draw.number("more", 2))
    title = about.fill(about.fault.title)
    title = title[0].upper() + title[1:]
    if draw.chance("log", 20):
        return title, [Block("p", [symptom, *details]), Block("pre", [draw.one("line", LOGS)]), Block("p", [ask])]
    if draw.chance("two", 40):
        return title, [Block("p", [symptom, *details]), Block("p", [ask])]
    return title, [Block("p", [symptom, *details, ask])]


def answer(about: Topic, draw: Draw, *, good: bool, chars: float) -> list[Block]:
    """An answer of about `chars` characters, and of as many tokens as that is on average."""

    def misses(draft: list[Block]) -> float:
        seen_chars, seen_tokens = length(draft)
        return abs(seen_chars / chars - 1) + abs(seen_tokens * CHARS_A_TOKEN / chars - 1)

    write = _good if good else _poor
    older = draw.number("older", 90) + 1 if draw.chance("link", 10) else None
    link = None if older is None else f"https://{SITE}/q/{older}"
    return min((write(about, Draw(draw.seed, f"{draw.name}/draft {n}"), link) for n in range(DRAFTS)), key=misses)


def _good(about: Topic, draw: Draw, link: str | None) -> list[Block]:
    opening = about.fill(draw.one("opening", voices.GOOD_OPENINGS))
    cause = draw.one("cause", about.fault.causes)
    bridge = draw.one("bridge", voices.GOOD_BRIDGES)
    steps = draw.some("steps", about.fault.steps, 1 + draw.number("count", 3))
    closings = [about.fill(line) for line in draw.some("closing", voices.GOOD_CLOSINGS, draw.number("closings", 3))]
    if closings and draw.chance("cheer", 20):
        closings[-1] = closings[-1][:-1] + "!"
    if link is not None:
        closings = [f"More of this is in [an older answer]({link}).", *closings[1:]]
    told = [Block("p", [opening, cause])] if draw.chance("opens", 85) else [Block("p", [cause])]
    form = draw.number("form", 4)
    if form == 0:  # prose
        words = ["First", "Then", "Finally"][: len(steps)]
        prose = [f"{word}, {step[0].lower()}{step[1:]}" for word, step in zip(words, steps, strict=True)]
        told.append(Block("p", prose + closings))
    elif form == 1:  # with a setting
        told += [Block("p", steps[:2]), Block("pre", [about.fault.setting])]
        told += [Block("p", closings)] if closings else []
    else:
        told += [Block("p", [bridge]), Block("ol", steps)]
        told += [Block("p", closings)] if closings else []
    return told


def _poor(about: Topic, draw: Draw, link: str | None) -> list[Block]:
    def cool(line: str, number: int) -> str:
        """Not every sentence shouts."""
        line = about.fill(line)
        if not line.endswith("!") or not draw.chance(f"cool {number}", 30):
            return line
        plain = line.rstrip("!")
        return plain if plain.endswith("?") else plain + "."

    rants = draw.some("rants", voices.POOR_RANTS, 2 + draw.number("count", 4))
    orders = draw.some("orders", voices.POOR_ORDERS, 1 + draw.number("orders", 3))
    closings = draw.some("closing", voices.POOR_CLOSINGS, draw.number("closings", 3))
    if link is not None:
        closings = [f"[Here]({link}), same nonsense!", *closings[1:]]
    said = [cool(line, n) for n, line in enumerate([draw.one("opening", voices.POOR_OPENINGS), *rants])]
    told = [cool(line, n + 10) for n, line in enumerate(orders)]
    ends = [cool(line, n + 20) for n, line in enumerate(closings)]
    form = draw.number("form", 4)
    if form == 0:  # with a setting
        blocks = [Block("p", said), Block("pre", [draw.one("setting", voices.POOR_SETTINGS)]), Block("p", told + ends)]
    elif form == 1:
        blocks = [Block("p", said), Block("ol", told)] + ([Block("p", ends)] if ends else [])
    elif form == 2:
        blocks = [Block("p", said), Block("p", told + ends)]
    else:
        blocks = [Block("p", said + told + ends)]
    return blocks


def length(blocks: Sequence[Block]) -> tuple[int, float]:
    """Characters as Markdown, and roughly how many tokens: capitals, digits and marks cost more than plain words."""
    written = {"p": "{}", "ol": "1. {}", "pre": "```\n{}\n```"}
    between = {"p": " ", "ol": "\n1. ", "pre": "\n"}
    text = "\n\n".join(written[block.kind].format(between[block.kind].join(block.lines)) for block in blocks)
    tokens = 0.0
    for word in re.findall(r"[^\W\d_]+|\d|[^\w\s]+|\n+", text):
        if word.isupper() and len(word) > 1:
            tokens += len(word) / 2
        else:
            tokens += 1 + max(0, len(word) - 6) / 8
    return len(text), tokens


def as_html(blocks: Sequence[Block]) -> str:
    """The body as the site renders it."""
    return "\n".join(_block_html(block) for block in blocks)


def _block_html(block: Block) -> str:
    if block.kind == "p":
        return f"<p>{_inline(' '.join(block.lines))}</p>\n"
    if block.kind == "pre":
        return "<pre><code>" + html.escape("\n".join(block.lines), quote=False) + "\n</code></pre>\n"
    items = "\n".join(f"<li>{_inline(line)}</li>" for line in block.lines)
    return f"<{block.kind}>\n{items}\n</{block.kind}>\n"


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    return re.sub(r"\[([^]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', escaped)
