"""Results: the metrics of held-out pairs and what else the two models were asked, in one place.

in   the evaluate stage's folder; generation.json (generate), judge.json (judge), both models' benchmarks (benchmark,
     alpaca_eval)
out  rows.parquet, plots/   those of evaluate
     metrics.json           evaluate's, and a section for each other evaluation: `generation`, `judge`, `benchmarks`

Made only where the recipe asks for more than held-out pairs; the later stages then take it for the evaluate stage. The
parts are stages of their own, so that asking for one more computes nothing again.
"""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

from tasks.evaluation.benchmark_table import compared_benchmarks
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.store import Store, Workspace

VERSION = 3  # bump when the bytes this stage writes would change

# Stage -> its file, and the section of metrics.json that it becomes. Benchmarks are two stages, one a model, and two
# more where alpaca_eval is asked: all of them together are `benchmarks`.
SECTIONS: Final = {"generate": ("generation.json", "generation"), "judge": ("judge.json", "judge")}
EXAMINED: Final = ("benchmark", "alpaca_eval")


def results(
    store: Store, evaluated: Manifest, others: Mapping[str, Manifest], model: Manifest, trained: Manifest
) -> Manifest:
    """`evaluated` with the sections of `others`: SECTIONS, and of EXAMINED `STAGE_start` with `STAGE_tuned`.

    `model` and `trained` are those whose results these are.
    """

    def build(work: Workspace) -> dict[str, int]:
        for name in evaluated.files:
            if name != "metrics.json":
                _take(evaluated, name, work)
        found: dict[str, Any] = json.loads(evaluated.path("metrics.json").read_text(encoding="utf-8"))
        counts = dict(evaluated.counts)
        for stage, manifest in others.items():
            if stage in SECTIONS:
                file, section = SECTIONS[stage]
                found[section] = json.loads(manifest.path(file).read_text(encoding="utf-8"))
            counts |= {f"{stage}.{name}": count for name, count in manifest.counts.items()}
        examined = [
            (others[f"{stage}_start"], others[f"{stage}_tuned"]) for stage in EXAMINED if f"{stage}_tuned" in others
        ]
        if examined:
            found |= compared_benchmarks(examined, model)
        text = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
        write_text(work.folder / "metrics.json", text + "\n")
        return counts

    inputs = {"evaluate": evaluated, "model": model, "train": trained, **others}
    return store.stage("results", VERSION, {}, inputs, build)


def _take(manifest: Manifest, name: str, work: Workspace) -> None:
    """A second name for the same bytes where the disk allows, else a copy."""
    place = work.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(manifest.path(name), place)
    except OSError:
        shutil.copyfile(manifest.path(name), place)
