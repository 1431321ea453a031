"""A dump to Markdown pairs: ours against iterparse, BeautifulSoup, markdownify and pairs in Python.

    python benchmarks/ingest.py [--json] [--megabytes 100] [--runs 3] [--dump FOLDER_OR_POSTS_XML]

The dump is made of a small one: its rows again and again with other ids, each body with a text of its own. All sides
read the same Posts.xml, rank by `pm`, keep 10 pairs a question and draw the same number of candidates. `peer` converts
the three texts of each pair, as the notebook behind the recipe's data does; `peer_once` converts each post once, as
ours does. Each run is a process of its own; runs are interleaved and ratios are ours / peer of the medians. CPU seconds
are those of a whole run, all processes and their start included; memory is the largest sum over a process and its
children of what each has to itself and its share of what is shared. `ours.mb_per_cpu_second` is that of the part before
Markdown: from the file to posts and candidates.
"""

import argparse
import json
import math
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SITE = "bench.stackexchange.com"
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "stackexchange" / "beer.stackexchange.com"
_IDS = re.compile(rb' (Id|ParentId|AcceptedAnswerId)="(\d+)"')


def small_dump(given: Path | None) -> list[bytes]:
    """The rows of a small dump: the one given, a real one where there is one, else made of words."""
    if given is not None:
        return rows_of((given / "Posts.xml" if given.is_dir() else given).read_bytes())
    if REAL.is_dir():
        import py7zr

        with tempfile.TemporaryDirectory() as folder, py7zr.SevenZipFile(next(REAL.glob("*.7z"))) as archive:
            archive.extract(folder, targets=["Posts.xml"])
            return rows_of((Path(folder) / "Posts.xml").read_bytes())
    return list(made_rows(random.Random(7)))


def rows_of(xml: bytes) -> list[bytes]:
    return [line for line in xml.splitlines() if b"<row " in line]


def made_rows(chance: random.Random) -> Iterator[bytes]:
    """Questions with two to five answers, about 1 kB each: paragraphs, code, lists and links."""
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(3000)]

    def body() -> str:
        said = []
        for _ in range(chance.randint(2, 6)):
            text = " ".join(chance.choices(words, k=chance.randint(8, 40)))
            forms = [
                f"<p>{text}</p>", f"<pre><code>{text}\n    x = 1 &lt; 2\n</code></pre>",
                f"<ul>\n<li>{text}</li>\n</ul>", f'<p>see <a href="https://example.com/x">{text}</a> for $x_1$</p>',
            ]  # fmt: skip
            said.append(chance.choice(forms))
        return "\n".join(said).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;").replace("\n", "&#xA;")

    usual = 'CreationDate="2014-01-21T20:26:05.383" OwnerUserId="3" LastActivityDate="2014-01-21T20:26:05.383"'
    number = 0
    for _ in range(1000):
        number += 1
        question = number
        yield f'  <row Id="{number}" PostTypeId="1" {usual} Score="2" Body="{body()}" Tags="&lt;a&gt;" />'.encode()
        for _ in range(chance.randint(2, 5)):
            number += 1
            score = chance.randint(-2, 40)
            yield (
                f'  <row Id="{number}" PostTypeId="2" ParentId="{question}" {usual} Score="{score}" Body="{body()}" />'
            ).encode()


def write_dump(folder: Path, rows: list[bytes], megabytes: int) -> Path:
    """A dump of about so many megabytes in `folder`."""
    (folder / SITE).mkdir()
    path = folder / SITE / "Posts.xml"
    step = 1 + max(int(found[1]) for row in rows for found in _IDS.findall(row))
    size = copy = 0
    with open(path, "wb") as out:
        out.write(b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n')
        while size < megabytes * 1_000_000:
            for number, row in enumerate(rows):
                other = _IDS.sub(lambda found: b' %s="%d"' % (found[1], int(found[2]) + copy * step), row)  # noqa: B023
                mark = b'Body="&lt;p&gt;Copy %d of row %d.&lt;/p&gt;&#xA;' % (copy, number)
                size += out.write(other.replace(b'Body="', mark, 1) + b"\r\n")
            copy += 1
        out.write(b"</posts>")
    return path


def ours(posts: Path, candidates: int) -> dict[str, Any]:
    """Ingest and pair as the pipeline does them."""
    from tasks.ingest import SourceConfig, ingest_source
    from tasks.pair import PairConfig, pair
    from tasks.store import Report, Store

    before_markdown: list[float] = []

    class Clock(Report):
        def message(self, stage: str, text: str) -> None:
            if text.startswith("converting"):
                before_markdown.append(cpu_seconds())

        def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
            pass

    store = Store(posts.parent.parent / "work", report=Clock())
    source = ingest_source(store, SourceConfig(path=str(posts)))
    done = pair(store, [source], PairConfig(candidates=candidates), 42)
    return {"rows": source.counts["rows"], "pairs": done.counts["pairs"], "before_markdown_s": before_markdown[0]}


def peer(posts: Path, candidates: int, *, once: bool) -> dict[str, Any]:
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

    with open(posts.parent.parent / "peer.jsonl", "w", encoding="utf-8") as out:
        for number, chosen, rejected in pairs:
            prompt = text(number, questions[number][0])
            made = {"prompt": prompt, "chosen": text(*chosen[1:]), "rejected": text(*rejected[1:])}
            out.write(json.dumps(made) + "\n")
    return {"rows": rows, "pairs": len(pairs)}


def cpu_seconds() -> float:
    """Of this process and of its children, those still at work included."""
    import psutil

    total = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for child in psutil.Process().children(recursive=True):
        spent = child.cpu_times()
        total += spent.user + spent.system
    return total


def measured(side: str, posts: Path, candidates: int) -> dict[str, Any]:
    """One run of one side in a process of its own."""
    import psutil

    started = time.monotonic()
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    child = subprocess.Popen(
        [sys.executable, __file__, "--side", side, "--dump", str(posts), "--candidates", str(candidates)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = 0

    def watch() -> None:
        nonlocal peak
        whole = psutil.Process(child.pid)
        while child.poll() is None:
            total = 0
            try:
                for process in (whole, *whole.children(recursive=True)):
                    total += process.memory_full_info().pss
            except psutil.Error:
                pass  # one of them has just ended
            peak = max(peak, total)
            time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    said = child.communicate()[0]
    watching.join()
    if child.returncode:
        raise SystemExit(f"{side} failed")
    spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    return json.loads(said) | {"cpu_s": spent, "wall_s": time.monotonic() - started, "memory_mb": peak / 1e6}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object and nothing else")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the made Posts.xml")
    parser.add_argument("--runs", type=int, default=3, help="of each side, interleaved")
    parser.add_argument("--candidates", type=int, default=100_000, help="pairs converted to Markdown, at most")
    parser.add_argument("--dump", type=Path, help="the small dump that the large one is made of")
    parser.add_argument("--side", choices=["ours", "peer", "peer_once"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        if options.side == "ours":
            print(json.dumps(ours(options.dump, options.candidates)))
        else:
            print(json.dumps(peer(options.dump, options.candidates, once=options.side == "peer_once")))
        return
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": [], "peer_once": []}
    with tempfile.TemporaryDirectory() as folder:
        posts = write_dump(Path(folder), small_dump(options.dump), options.megabytes)
        size = posts.stat().st_size
        for _ in range(options.runs):
            for side, done in runs.items():
                subprocess.run(["rm", "-rf", str(Path(folder) / "work")], check=True)
                done.append(measured(side, posts, options.candidates))
    sides = {side: middle(done) for side, done in runs.items()}
    sides["ours"]["mb_per_cpu_second"] = round(size / 1e6 / sides["ours"]["before_markdown_s"], 1)
    result = {
        "megabytes": round(size / 1e6, 1),
        "runs": options.runs,
        **sides,
        "cpu_ratio": round(sides["ours"]["cpu_s"] / sides["peer"]["cpu_s"], 4),
        "cpu_ratio_once": round(sides["ours"]["cpu_s"] / sides["peer_once"]["cpu_s"], 4),
        "memory_ratio": round(sides["ours"]["memory_mb"] / sides["peer"]["memory_mb"], 4),
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
