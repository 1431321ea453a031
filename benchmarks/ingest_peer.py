"""The peer of benchmarks/ingest.py: a dump to pairs the way the public paired set was made."""

import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any


def peer(posts: Path, out: Path, candidates: int, *, once: bool) -> dict[str, Any]:
    """The same with the libraries that one reaches for first; `once`: no post is converted twice."""
    import xml.etree.ElementTree as ElementTree

    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    questions: dict[int, tuple[str, int | None]] = {}
    answers: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    rows = 0
    parsing = ElementTree.iterparse(posts, events=("start", "end"))
    root = next(parsing)[1]
    for event, row in parsing:
        if event == "start" or row.tag != "row":
            continue
        rows += 1
        if row.get("PostTypeId") == "1":
            accepted = row.get("AcceptedAnswerId")
            questions[int(row.get("Id", 0))] = (row.get("Body", ""), int(accepted) if accepted else None)
        elif row.get("PostTypeId") == "2":
            kept = (int(row.get("Id", 0)), int(row.get("Score", 0)), row.get("Body", ""))
            answers[int(row.get("ParentId", 0))].append(kept)
        root.clear()

    chance = random.Random(42)
    pairs = []
    for number, (_, accepted) in questions.items():
        ranked = [
            (-1 if votes < 0 else round(math.log2(1 + votes)) + (answer == accepted), answer, body)
            for answer, votes, body in answers.get(number, [])
        ]
        found = [
            (number, *((one, other) if one[0] > other[0] else (other, one)))
            for place, one in enumerate(ranked)
            for other in ranked[place + 1 :]
            if one[0] != other[0]
        ]
        pairs += found if len(found) <= 10 else chance.sample(found, 10)
    if len(pairs) > candidates:
        pairs = chance.sample(pairs, candidates)

    converter = MarkdownConverter(heading_style="ATX")
    texts: dict[int, str] = {}

    def text(number: int, html: str) -> str:
        if number in texts:
            return texts[number]
        made = converter.convert_soup(BeautifulSoup(html, "html.parser")).strip()
        if once:
            texts[number] = made
        return made

    with open(out, "w", encoding="utf-8") as lines:
        for number, chosen, rejected in pairs:
            prompt = text(number, questions[number][0])
            made = {"prompt": prompt, "chosen": text(*chosen[1:]), "rejected": text(*rejected[1:])}
            lines.write(json.dumps(made) + "\n")
    return {"rows": rows, "pairs": len(pairs)}
