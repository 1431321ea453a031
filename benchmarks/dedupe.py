"""Near duplicates: ours against datasketch, on texts in which edits are planted.

    python benchmarks/dedupe.py [--json] [--texts 30000] [--runs 3]

Both read the same Parquet file of prompts and answers and give the pairs of texts whose Jaccard similarity, over
shingles of five words, is at least the threshold; both verify their candidates exactly. Each run is a process of its
own; runs are interleaved, ratios are ours / peer of the medians. CPU seconds are those of the work, imports apart, on
all threads; memory is the peak of the process. Recall of ours is counted over every planted pair, measured with
Python's sets; precision over all that was found.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

THRESHOLDS = (0.7, 0.8, 0.9)
PLANTED = 0.1  # share of the texts that are an edit of another one
COLUMNS = ("prompt", "chosen", "rejected")


def corpus(texts: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts of 20 to 400 words with a vocabulary like a language's, and the pairs (original, edit) among them."""
    chance = random.Random(seed)
    letters = "etaoinshrdlu"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(30_000)]
    weights = [1 / (place + 3) for place in range(len(words))]
    sums, total = [], 0.0
    for weight in weights:
        total += weight
        sums.append(total)
    said: list[list[str]] = []
    planted = []
    while len(said) < texts:
        said.append(chance.choices(words, cum_weights=sums, k=chance.choice((20, 40, 80, 120, 200, 200, 400))))
        if len(said) < texts and chance.random() < 2 * PLANTED:
            planted.append((len(said) - 1, len(said)))
            said.append(edited(said[-1], chance, words))
    order = list(range(texts))
    chance.shuffle(order)
    place = {number: at for at, number in enumerate(order)}
    return [" ".join(said[number]) for number in order], [(place[one], place[other]) for one, other in planted]


def edited(text: list[str], chance: random.Random, words: list[str]) -> list[str]:
    """A text with words changed, cut out or put in at a few places: Jaccard from 0.5 to nearly 1."""
    edit = list(text)
    for _ in range(max(1, round(len(text) * chance.uniform(0.002, 0.07)))):
        place = chance.randrange(len(edit))
        kind = chance.randrange(3)
        if kind == 0:
            edit[place] = chance.choice(words)
        elif kind == 1:
            edit.insert(place, chance.choice(words))
        else:
            del edit[place]
    return edit


def shingles(text: str) -> frozenset[str]:
    words = text.split()
    return frozenset(" ".join(words[place : place + 5]) for place in range(max(1, len(words) - 4)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def write(texts: list[str], path: Path) -> None:
    """The texts as the three columns of a third as many pairs, without ids."""
    rows = len(texts) // 3
    columns: dict[str, Any] = {name: texts[at * rows : (at + 1) * rows] for at, name in enumerate(COLUMNS)}
    ids = [f"made/{row:08}" for row in range(rows)]
    missing = {name: pl.lit(None) for name in ("site", "question_id", "chosen_id", "rejected_id")}
    pl.DataFrame({"pair_id": ids, **columns}).with_columns(**missing).write_parquet(path)


def ours(path: Path, threshold: float) -> Iterator[tuple[str, str]]:
    """The near duplicates as the dedupe stage finds them."""
    from tasks.duplicates.exact_duplicates import keyed_rows, text_keys
    from tasks.duplicates.minhash import Sketches
    from tasks.duplicates.near_duplicates import near_texts

    with tempfile.TemporaryDirectory() as scratch:
        sketches = {}
        for kind in ("prompt", "answer"):
            (folder := Path(scratch) / kind).mkdir()
            sketches[kind] = Sketches(folder, threshold)
        rows = keyed_rows(path, text_keys(path, lambda kind, texts: sketches[kind].add(texts)))
        rows = rows.with_columns(turn="row")
        for kind, columns in (("prompt", COLUMNS[:1]), ("answer", COLUMNS[1:])):
            found = near_texts(sketches[kind], rows, columns, path, threshold)
            where = {}
            for column in columns:
                where |= {number: (column, row) for row, number in enumerate(found.numbers(rows[column]).tolist())}
            for left, right in zip(found.left.tolist(), found.right.tolist(), strict=True):
                yield where[left], where[right]


def peer(path: Path, threshold: float) -> Iterator[tuple[Any, Any]]:
    """datasketch as its documentation uses it, in batches, and its candidates verified."""
    from datasketch import MinHash, MinHashLSH

    frame = pl.read_parquet(path, columns=list(COLUMNS))
    for columns in (COLUMNS[:1], COLUMNS[1:]):
        index = MinHashLSH(threshold=threshold, num_perm=128)
        sets, prints = {}, {}
        for column in columns:
            for row, text in enumerate(frame[column]):
                sets[column, row] = shingles(" ".join(text.lower().split()))
                prints[column, row] = MinHash(num_perm=128)
                prints[column, row].update_batch([shingle.encode() for shingle in sets[column, row]])
        for key, sketch in prints.items():
            for other in index.query(sketch):
                if jaccard(sets[key], sets[other]) >= threshold:
                    yield other, key
            index.insert(key, sketch, check_duplication=False)


def measured(which: str, path: Path, threshold: float) -> dict[str, Any]:
    """What one process spends on finding the pairs, and the pairs."""
    import numpy  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    if which == "ours":
        import scipy.sparse.csgraph  # noqa: F401

        import tasks.duplicates.near_duplicates  # noqa: F401
    else:
        import datasketch  # noqa: F401
    start, clock = time.process_time(), time.perf_counter()
    found = list((ours if which == "ours" else peer)(path, threshold))
    spent = {"cpu_seconds": time.process_time() - start, "seconds": time.perf_counter() - clock}
    return {**spent, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "found": found}


def in_process(which: str, path: Path, threshold: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", which, "--path", str(path), "--threshold", str(threshold)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def quality(found: list[Any], truth: dict[frozenset[Any], float], threshold: float) -> dict[str, float]:
    """Recall over the planted pairs at or above the threshold; precision of all that was found."""
    edges = {frozenset(map(tuple, edge)) for edge in found}
    wanted = {pair for pair, similarity in truth.items() if similarity >= threshold}
    right = sum(truth.get(edge, 0.0) >= threshold for edge in edges)
    return {
        "pairs": len(wanted),
        "found": len(edges),
        "recall": len(wanted & edges) / max(len(wanted), 1),
        "precision": right / max(len(edges), 1),
    }


def truth_of(texts: list[str], planted: list[tuple[int, int]]) -> dict[frozenset[Any], float]:
    """Every planted pair that a search can see (prompts among themselves, answers likewise), and how similar it is."""
    rows = len(texts) // 3
    found = {}
    for pair in planted:
        (column, row), (other, its_row) = (divmod(number, rows) for number in pair)
        if max(column, other) < 3 and (column == 0) == (other == 0):
            edge = frozenset(((COLUMNS[column], row), (COLUMNS[other], its_row)))
            found[edge] = jaccard(shingles(texts[pair[0]]), shingles(texts[pair[1]]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--texts", type=int, default=30_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.path, given.threshold)))
        return
    texts, planted = corpus(given.texts, seed=1)
    truth = truth_of(texts, planted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write(texts, path)
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
        for _ in range(given.runs):
            for which, done in runs.items():
                done.append(in_process(which, path, 0.8))
        at = {
            f"{threshold}": quality(in_process("ours", path, threshold)["found"], truth, threshold)
            for threshold in THRESHOLDS
        }
        peer_at = quality(runs["peer"][0]["found"], truth, 0.8)
    sides: dict[str, dict[str, float]] = {
        which: {
            name: round(statistics.median(run[name] for run in done), 3)
            for name in ("cpu_seconds", "seconds", "peak_mb")
        }
        for which, done in runs.items()
    }
    report = {
        "texts": given.texts,
        **sides,
        "cpu_ratio": round(sides["ours"]["cpu_seconds"] / sides["peer"]["cpu_seconds"], 4),
        "memory_ratio": round(sides["ours"]["peak_mb"] / sides["peer"]["peak_mb"], 4),
        "recall": {threshold: round(seen["recall"], 4) for threshold, seen in at.items()},
        "precision": {threshold: round(seen["precision"], 4) for threshold, seen in at.items()},
        "planted": {threshold: seen["pairs"] for threshold, seen in at.items()},
        "peer_recall": {"0.8": round(peer_at["recall"], 4)},
    }
    if given.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:13} {value}")


if __name__ == "__main__":
    main()
