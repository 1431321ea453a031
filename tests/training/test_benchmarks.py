"""The benchmarks' own commands, at a size where they cost seconds: what they print and write is what they found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sections import write_section

ROOT = Path(__file__).parents[2]


def test_a_section_is_written_in_its_place_and_no_other_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "benchmarks.md"
    write_section(path, "dpo", "DPO", "first")
    path.write_text(path.read_text() + "\n## Reading dumps\n\nsomebody else's \\1 section\n")
    write_section(path, "memory", "Memory", "third")
    before = path.read_text()
    write_section(path, "dpo", "DPO", "second \\1")
    after = path.read_text()
    assert after == before.replace("first", "second \\1")
    assert "somebody else's \\1 section" in after and after.count("<!-- dpo -->") == 1
    assert after.index("## DPO") < after.index("## Reading dumps") < after.index("## Memory")


@pytest.mark.slow
def test_the_dpo_benchmark_runs_on_random_weights_beside_trl(tmp_path: Path) -> None:
    written = tmp_path / "benchmarks.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.dpo", "--shape", "tiny", "--pairs", "8", "--batch-size", "4", "--cap", "64",
         "--runs", "1", "--json", "--write", written],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"ours", "peer", "cpu_ratio", "memory_ratio", "time_ratio"} <= set(found)
    peers = [found["peer"][name] for name in ("trl-precomputed", "trl-online")]
    assert found["cpu_ratio"] == found["ours"]["cpu_seconds"] / min(peer["cpu_seconds"] for peer in peers)
    assert found["memory_ratio"] == found["ours"]["peak_bytes"] / min(peer["peak_bytes"] for peer in peers)
    assert len(found["ours"]["losses"]) == 2 and found["loss_difference"] < 1e-5
    assert found["ours"]["losses"][0] == pytest.approx(0.693147, abs=1e-5)
    text = written.read_text()
    assert "## DPO" in text and f"CPU {found['cpu_ratio']:.3f}" in text
