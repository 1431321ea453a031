"""What benchmarks/ingest.py measured, as tables, and what follows from it for a dump of 100 GB."""

from collections.abc import Sequence
from typing import Any, Final

LARGE_MB: Final = 100_000.0
CORES: Final = (2, 16)
MOST_WORKERS: Final = 4  # tasks/workers.py: the memory of more would go over the bar
BZIP2_MB: Final = 17.0  # of XML a CPU second that come out of an archive packed with BZip2; one core each block


def extrapolated(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For LARGE_MB, from the largest size: `read` and `choose` grow with the dump, the rest with the candidates."""
    last = sizes[-1]
    mine, factor = last["ours"], LARGE_MB / last["megabytes"]
    cpu = workers = 0.0
    for stage in ("read", "choose", "convert", "dedupe"):
        times = factor if stage in ("read", "choose") else 1.0
        cpu += times * mine.get(f"{stage}_cpu_s", 0.0)
        workers += times * mine.get(f"{stage}_workers_cpu_s", 0.0)
    hours = {f"hours_on_{cores}_cores": (cpu - workers + workers / min(cores, MOST_WORKERS)) / 3600 for cores in CORES}
    unpacking = LARGE_MB / BZIP2_MB / 3600
    found = {"megabytes": LARGE_MB, "cpu_hours": cpu / 3600, **hours, "unpacking_bzip2_cpu_hours": unpacking,
             "stored_gb": factor * mine["stored_mb"] / 1e3}  # fmt: skip
    return {name: round(value, 2) for name, value in found.items()}


def tables(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| XML, MB | rows | read, CPU s | choose, CPU s | MB per CPU s | convert, CPU s | dedupe, CPU s | pairs "
        "| wall s to pairs | peak MB: read, choose, convert, dedupe |",
        "|" + "---:|" * 10,
    ]
    for size in result["sizes"]:
        mine = size["ours"]
        memory = ", ".join(f"{mine[f'{stage}_memory_mb']:.0f}" for stage in ("read", "choose", "convert", "dedupe")
                           if f"{stage}_memory_mb" in mine)  # fmt: skip
        cells = [
            f"{size['megabytes']:.0f}", f"{mine['rows']:.0f}", f"{mine['read_cpu_s']:.1f}",
            f"{mine['choose_cpu_s']:.1f}", f"{mine['mb_per_cpu_second']:.1f}", f"{mine['convert_cpu_s']:.1f}",
            f"{mine['dedupe_cpu_s']:.1f}" if "dedupe_cpu_s" in mine else "", f"{mine['pairs']:.0f}",
            f"{mine['wall_s']:.1f}", memory,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    compared = [(size, size[side]) for size in result["sizes"] for side in ("peer", "peer_once") if side in size]
    if compared:
        lines += ["", "| XML, MB | | CPU s to pairs | peak MB | ours / peer, CPU | ours / peer, memory |",
                  "|---:|---|---:|---:|---:|---:|"]  # fmt: skip
    for size, side in compared:
        if side is size["peer"]:
            lines.append(_row(size, "ours", size["ours"], None))
        lines.append(_row(size, "peer" if side is size["peer"] else "peer, each post once", side, size["ours"]))
    far = result["extrapolated"]
    lines += [
        "",
        f"100 GB of XML, from the largest size above: {far['cpu_hours']} CPU-hours, "
        + ", ".join(f"{far[f'hours_on_{cores}_cores']} hours on {cores} cores" for cores in CORES)
        + f", {far['stored_gb']} GB in the store; out of a BZip2 archive {far['unpacking_bzip2_cpu_hours']} "
        "CPU-hours more for unpacking.",
    ]
    return "\n".join(lines)


def _row(size: dict[str, Any], name: str, side: dict[str, Any], ours: dict[str, Any] | None) -> str:
    ratios = ["", ""]
    if ours is not None:
        ratios = [f"{ours['cpu_s'] / side['cpu_s']:.3f}", f"{ours['memory_mb'] / side['memory_mb']:.2f}"]
    cells = [f"{size['megabytes']:.0f}", name, f"{side['cpu_s']:.1f}", f"{side['memory_mb']:.0f}", *ratios]
    return "| " + " | ".join(cells) + " |"
