"""A run: its folder, its log, its summary, and the loop that follows the stages.

    WORK_DIR/runs/NAME/   recipe.yaml, run.log, summary.json, stages/STAGE -> the stage's folder in the store

summary.json is what `prefstack run --json` prints, written again after every stage, so that it is there whatever
happens next.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from flows.recipe import STAGES, Recipe, Stage, stage_named
from flows.report import current_report
from flows.summaries import Summary, empty_summary, failure, typed
from tasks.errors import PrefstackError, RecipeError
from tasks.folders import write_text
from tasks.manifest import Manifest
from tasks.store import Store

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
logger = logging.getLogger("prefstack")


@dataclass
class Run:
    """One run's folder and what has been done in it so far."""

    name: str
    folder: Path
    summary: Summary = field(default_factory=dict)

    def finish(self, stage: Stage, manifests: Sequence[Manifest], seconds: float) -> None:
        """Write down a stage that is done."""
        self.summary["stages"][stage] = stage_entry(stage, manifests, seconds)
        links = self.folder / "stages"
        links.mkdir(exist_ok=True)
        for position, manifest in enumerate(manifests):
            name = stage if len(manifests) == 1 else f"{stage}-{position + 1}"
            link = links / name
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../../../store") / manifest.folder.name)
        if stage == "evaluate":
            self.summary["metrics"] = json.loads(manifests[0].path("metrics.json").read_text(encoding="utf-8"))
        if stage == "publish":
            self.summary["model"] = str(manifests[0].path("model"))
        self.write()

    def fail(self, error: PrefstackError, stage: Stage | None) -> None:
        """Write down what stopped the run."""
        self.summary["error"] = failure(error, stage)
        self.write()

    def write(self) -> None:
        write_text(self.folder / "summary.json", json.dumps(self.summary, indent=1, ensure_ascii=False) + "\n")


def stage_entry(stage: Stage, manifests: Sequence[Manifest], seconds: float) -> dict[str, Any]:
    """What a summary says of one stage; `ingest` sums its sources and lists them."""
    entries = [
        {
            "folder": str(manifest.folder), "fingerprint": manifest.fingerprint, "reused": manifest.reused,
            "seconds": manifest.seconds, "counts": manifest.counts,
        }
        for manifest in manifests
    ]  # fmt: skip
    alone = entries[0] if len(entries) == 1 else {"folder": None, "fingerprint": None}
    counts: dict[str, int] = {}
    for manifest in manifests:
        for name, count in manifest.counts.items():
            counts[name] = counts.get(name, 0) + count
    entry = {
        **alone, "reused": all(manifest.reused for manifest in manifests), "seconds": round(seconds, 3),
        "counts": counts,
    }  # fmt: skip
    if stage == "ingest":
        entry["sources"] = entries
    return entry


def run_name(recipe: str, now: datetime | None = None) -> str:
    """A name for a run of `recipe`: what it runs, and when."""
    moment = now or datetime.now(UTC)
    return f"{recipe_stem(recipe)}-{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03d}"


def recipe_stem(recipe: str) -> str:
    """The name or the file name of `recipe` in the letters that a run's name may have."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe)
    return stem.strip("-.")[:48] or "run"


def refuse_bad_name(name: str) -> None:
    """RecipeError where `name` could not be that of a run's folder."""
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"run name {name!r} may hold letters, digits, '.', '_' and '-', and begin with one of the first two, 96 at"
            " most"
        )


def open_run(name: str, recipe: Recipe) -> Run:
    """The folder of the run `name`; a retry of the same run goes on in the same folder.

    Another recipe under a name that is taken takes its place, which is said: its stages stay in the store.
    """
    refuse_bad_name(name)
    folder = recipe.work_dir.absolute() / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "recipe.yaml"
    settings = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if kept.exists() and kept.read_text(encoding="utf-8", errors="replace") != settings:
        said = "had other settings until now; this one takes its place, and `gc` may remove what it has made"
        current_report().message("run", f"the run {name} {said}")
    write_text(kept, settings)
    summary = empty_summary(name)
    if recipe.gates.waive:
        summary["waived"] = dict(recipe.gates.waive)
    return Run(name, folder, summary)


def follow(run: Run, stages: Iterable[tuple[Stage, list[Manifest]]], until: Stage | None) -> Summary:
    """Do the stages up to `until`, writing each down; a PrefstackError is written down and raised."""
    report = current_report()
    current = STAGES[0]
    start = time.monotonic()
    try:
        for stage, manifests in stages:
            now = time.monotonic()
            run.finish(stage, manifests, now - start)
            report.message(stage, finished_line(run.summary["stages"][stage]))
            start = now
            if stage == until or stage == STAGES[-1]:
                break
            current = STAGES[STAGES.index(stage) + 1]
    except PrefstackError as error:
        run.fail(error, current)
        raise
    except Exception as error:
        if (signalled := signal_behind(error)) is not None:
            raise signalled from error
        said = typed(error)
        run.fail(said, current)
        raise said from error
    run.write()
    return run.summary


def signal_behind(error: Exception) -> BaseException | None:
    """The Ctrl-C or SIGTERM that `error` came of: between two states of a task Prefect makes a ValueError of one."""
    from prefect.exceptions import TerminationSignal

    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, KeyboardInterrupt | TerminationSignal):
        behind = behind.__cause__ or behind.__context__
    return behind


@contextmanager
def written_down(run: Run) -> Iterator[None]:
    """Write down an error before the first stage, as `follow` does of a stage's."""
    try:
        yield
    except PrefstackError as error:
        run.fail(error, None)
        raise


def finished_line(entry: Mapping[str, Any]) -> str:
    """`built in 3.1 s: 1,029 questions, 2,277 answers`."""
    done = "reused" if entry["reused"] else f"built in {entry['seconds']:.1f} s"
    return f"{done}: {brief(entry['counts'])}"


def brief(counts: Mapping[str, int]) -> str:
    """The counts that matter at a glance: what is there, and how much was skipped and dropped."""
    shown = [f"{count:,} {name}" for name, count in counts.items() if "." not in name][:4]
    for gone in ("skipped", "dropped"):
        number = sum(count for name, count in counts.items() if name.startswith(f"{gone}."))
        shown += [f"{number:,} {gone}"] if number else []
    return ", ".join(shown)


@contextmanager
def run_log(run: Run) -> Iterator[None]:
    """Everything that is logged while the run goes on stands in its run.log too."""
    handler = logging.FileHandler(run.folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:  # started by a worker: nobody has said how much is to be logged
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def find_run(name: str, work_dir: Path) -> Path:
    """The folder of the run `name`, of the newest run for `latest`, or RecipeError."""
    runs = work_dir / "runs"
    names = sorted(
        (path.name for path in runs.glob("*") if (path / "summary.json").is_file()), key=lambda n: _age(runs / n)
    )
    if name == "latest" and names:
        return runs / names[-1]
    if name in names:
        return runs / name
    known = f"the newest are {', '.join(names[-3:])}" if names else "there is none yet"
    raise RecipeError(f"there is no run {name!r} under {runs}: {known}")


def _age(folder: Path) -> float:
    return (folder / "summary.json").stat().st_mtime


def store_of(recipe: Recipe, run: str, force: Sequence[str]) -> Store:
    """The store of a run; RecipeError where `force` names no stage."""
    return Store(
        work_dir=recipe.work_dir.absolute(),
        run=run,
        force=frozenset(stage_named(stage) for stage in force),
        verify=os.environ.get("PREFSTACK_VERIFY") == "1",
        report=current_report(),
    )
