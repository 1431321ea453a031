"""A dump to Markdown pairs: ours against iterparse, BeautifulSoup, markdownify and pairs in Python.

    python benchmarks/ingest.py [--json] [--megabytes 100 500 2000] [--peer-megabytes 100] [--runs 3] [--dump SMALL]

The dump is made of a small one (benchmarks/made_dump.py). All sides read the same Posts.xml, rank by `pm`, keep 10
pairs a question and draw the same number of candidates. `peer` converts the three texts of each pair, as the notebook
behind the recipe's data does; `peer_once` converts each post once, as ours does. Each run is a process of its own; runs
are interleaved, numbers are medians and ratios are ours / peer. CPU seconds are those of all processes of a run, their
start included; memory is the largest sum, over a process and its children, of what each has to itself and its share of
what is shared. Ours is told stage by stage: `read` (the file to posts), `choose` (candidates on numbers alone),
`convert` (their texts to Markdown pairs), `dedupe` (exact and near). The ratios are for everything before `dedupe`,
which the peer has not; `mb_per_cpu_second` is XML over the CPU seconds of `read` and `choose`, start included. The peer
runs at sizes up to --peer-megabytes. Without --json tables are printed, as in docs/benchmarks.md.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, this folder is on the path and not the one above

from benchmarks.ingest_peer import peer  # noqa: E402
from benchmarks.ingest_tables import extrapolated, tables  # noqa: E402

STAGES: Final = ("read", "choose", "convert", "dedupe")
_BEGINS: Final = {"pairing": "choose", "converting": "convert"}  # by the first word of what the pipeline says


def ours(posts: Path, candidates: int, *, dedupes: bool) -> dict[str, Any]:
    """Ingest, pair and dedupe as the pipeline does them; when each stage ended, and the CPU seconds until then."""
    from tasks.dedupe import DedupeConfig, dedupe
    from tasks.ingest import SourceConfig, ingest_source
    from tasks.pair import PairConfig, pair
    from tasks.store import Report, Store

    ends: dict[str, tuple[float, float, float]] = {}
    running = "read"

    def begin(stage: str) -> None:
        nonlocal running
        ends[running] = (time.monotonic(), *cpu_seconds())
        running = stage

    class Clock(Report):
        def message(self, stage: str, text: str) -> None:
            begun = _BEGINS.get(text.split()[0])
            if begun is not None:
                begin(begun)

        def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
            pass

    store = Store(posts.parent.parent / "work", report=Clock())
    source = ingest_source(store, SourceConfig(path=str(posts)))
    done = pair(store, [source], PairConfig(candidates=candidates), 42)
    begin("dedupe")
    kept = dedupe(store, done, DedupeConfig(), 42).counts["kept"] if dedupes else None
    begin("")
    stored = sum(path.stat().st_size for path in (store.work_dir / "store").rglob("*") if path.is_file())
    counts = {"rows": source.counts["rows"], "pairs": done.counts["pairs"], "kept": kept, "stored_mb": stored / 1e6}
    return counts | {"ends": {stage: ends[stage] for stage in STAGES[: 3 + dedupes]}}


def cpu_seconds() -> tuple[float, float]:
    """Of this process, and of its children, those still at work included."""
    import psutil

    own, others = (sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for child in psutil.Process().children(recursive=True):
        spent = child.cpu_times()
        others += spent.user + spent.system
    return own, others


def measured(side: str, posts: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run of one side in a process of its own."""
    import psutil

    shutil.rmtree(posts.parent.parent / "work", ignore_errors=True)
    started = time.monotonic()
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    # Compiled modules are kept, as where the package is installed: to compile ours at each start costs 0.2 CPU seconds.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen(
        [sys.executable, __file__, "--side", side, "--dump", str(posts), "--candidates", str(options.candidates),
         *(["--no-dedupe"] if options.no_dedupe else [])],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    seen: list[tuple[float, int]] = []

    def watch() -> None:
        whole = psutil.Process(child.pid)
        while child.poll() is None:
            total = 0
            try:
                for process in (whole, *whole.children(recursive=True)):
                    total += process.memory_full_info().pss
            except psutil.Error:
                pass  # one of them has just ended
            seen.append((time.monotonic(), total))
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    said = child.communicate()[0]
    watching.join()
    if child.returncode:
        raise SystemExit(f"{side} failed")
    found: dict[str, Any] = json.loads(said)
    result = {name: found[name] for name in ("rows", "pairs")}
    if side == "ours":
        return result | _by_stage(found, started, seen)
    spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    return result | {"cpu_s": spent, "wall_s": time.monotonic() - started, "memory_mb": max(m for _, m in seen) / 1e6}


def _by_stage(found: dict[str, Any], started: float, seen: list[tuple[float, int]]) -> dict[str, Any]:
    """What each stage took: CPU seconds of the main process and of its workers, wall seconds, largest memory."""
    result: dict[str, Any] = {"kept": found["kept"], "stored_mb": found["stored_mb"]}
    clock, own, others = started, 0.0, 0.0
    memory: dict[str, float] = {}
    for stage, (end, own_end, others_end) in found["ends"].items():
        memory[stage] = max((total for at, total in seen if clock < at <= end), default=0) / 1e6
        result |= {
            f"{stage}_cpu_s": own_end + others_end - own - others, f"{stage}_workers_cpu_s": others_end - others,
            f"{stage}_wall_s": end - clock, f"{stage}_memory_mb": memory[stage],
        }  # fmt: skip
        clock, own, others = end, own_end, others_end
    before = STAGES[:3]  # what the peer does too
    for name in ("cpu_s", "wall_s"):
        result[name] = sum(result[f"{stage}_{name}"] for stage in before)
    return result | {"memory_mb": max(memory[stage] for stage in before), "largest_memory_mb": max(memory.values())}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: None if runs[0][name] is None else round(statistics.median(run[name] for run in runs), 2)
            for name in runs[0]}  # fmt: skip


def at_size(megabytes: int, options: argparse.Namespace) -> dict[str, Any]:
    """All sides at one size."""
    from benchmarks.made_dump import small_dump, write_dump  # not by a side: it loads numpy otherwise than ours does

    names = ["ours"] + (["peer", "peer_once"] if megabytes <= options.peer_megabytes else [])
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        posts = write_dump(Path(folder), small_dump(options.dump), megabytes)
        size = posts.stat().st_size / 1e6
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(options.runs):
            for name in names:
                runs[name].append(measured(name, posts, options))
    sides: dict[str, Any] = {name: middle(done) for name, done in runs.items()}
    mine = sides["ours"]
    mine["mb_per_cpu_second"] = round(size / (mine["read_cpu_s"] + mine["choose_cpu_s"]), 1)
    result = {"megabytes": round(size, 1), "runs": options.runs, **sides}
    if "peer" in sides:
        result |= {
            "cpu_ratio": round(mine["cpu_s"] / sides["peer"]["cpu_s"], 4),
            "cpu_ratio_once": round(mine["cpu_s"] / sides["peer_once"]["cpu_s"], 4),
            "memory_ratio": round(mine["memory_mb"] / sides["peer"]["memory_mb"], 4),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object and nothing else")
    parser.add_argument("--megabytes", type=int, nargs="*", default=[100], help="sizes of the made Posts.xml")
    parser.add_argument("--peer-megabytes", type=int, default=100, help="largest size that the peer is run at")
    parser.add_argument("--runs", type=int, default=3, help="of each side, interleaved")
    parser.add_argument("--candidates", type=int, default=100_000, help="pairs converted to Markdown, at most")
    parser.add_argument("--no-dedupe", action="store_true", help="end with the pairs")
    parser.add_argument("--dump", type=Path, help="the small dump that the large one is made of: Posts.xml or a .7z")
    parser.add_argument("--scratch", type=Path, help="folder for the dumps: three times the largest in disk")
    parser.add_argument("--side", choices=["ours", "peer", "peer_once"], help=argparse.SUPPRESS)
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="JSON of other runs, to be told with this one")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(options)))
        return
    sizes = [size for path in options.add for size in json.loads(path.read_text(encoding="utf-8"))["sizes"]]
    sizes = sorted(sizes + [at_size(number, options) for number in options.megabytes], key=lambda one: one["megabytes"])
    result: dict[str, Any] = {"sizes": sizes, "extrapolated": extrapolated(sizes)}
    compared = [size for size in sizes if "peer" in size]
    if compared:  # the largest at which the peer ran
        named = ("megabytes", "ours", "peer", "peer_once", "cpu_ratio", "cpu_ratio_once", "memory_ratio")
        result = {name: compared[-1][name] for name in named} | result
    print(json.dumps(result) if options.json else tables(result))


def one_side(options: argparse.Namespace) -> dict[str, Any]:
    posts = options.dump
    if options.side == "ours":
        return ours(posts, options.candidates, dedupes=not options.no_dedupe)
    once = options.side == "peer_once"
    return peer(posts, posts.parent.parent / "peer.jsonl", options.candidates, once=once)


if __name__ == "__main__":
    main()
