"""`prefstack gc`: remove from a work folder what no run of the last N refers to.

A run refers to the folders in its summary and behind its links, to all that they were made of, to the gates that
judged them and the cards that describe them, and to what its recipe would make or find now: the checkpoints of a run
that can be retried stay, and so do the downloads that its recipe names and the log-probs of its models. What is being
built, fetched or scored is locked, and is left alone. Runs' own folders and digests are small and stay.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.gc_bytes import freed_bytes
from flows.gc_logps import usable_logps
from flows.plain import Steps, plain_steps
from flows.recipe import load_recipe
from flows.runs import store_of
from flows.show import rendered
from flows.stages import all_stages
from tasks.errors import PrefstackError, RecipeError
from tasks.manifest import Manifest
from tasks.sources.download import download_folder, is_url

# Seconds; where a run cannot be planned, it may have found a folder and not written it down. A download that was just
# made, or log-probs that were just scored, may be of a run that has only begun.
YOUNG: Final = 3600.0
_SCRATCH: Final = (".building-", ".old-")
_ABOUT: Final = ("gate-", "card-")  # what is made of a stage and feeds none


@dataclass(frozen=True)
class Leftover:
    """A folder that may go, and why."""

    path: Path
    why: str


def collect(work_dir: Path, keep: int, remove: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """List what the last `keep` runs do not refer to; with `remove`, remove it. RecipeError where there is no store."""
    if not (work_dir / "store").is_dir():
        raise RecipeError(f"{work_dir} has no store: name the work folder with --work-dir")
    runs = last_runs(work_dir, keep)
    wanted, unsure = referred(work_dir, runs)
    found: list[dict[str, Any]] = []
    logps = None if unsure else usable_logps(work_dir, runs, wanted, say)
    left = [*leftovers(work_dir, wanted, unsure=bool(unsure)), *_logps_left(work_dir, logps)]
    for leftover, size in zip(left, freed_bytes([leftover.path for leftover in left]), strict=True):
        outcome = "would be removed"
        if remove:
            outcome = "removed" if _remove(work_dir, leftover.path) else "in use: left"
        found.append({"folder": str(leftover.path), "bytes": size, "why": leftover.why, "outcome": outcome})
    for run in unsure:
        say(f"{run}: its recipe cannot be planned from here, so what is unfinished or of the last hour is kept")
    freed = sum(entry["bytes"] for entry in found if entry["outcome"] != "in use: left")
    return {
        "work_dir": str(work_dir), "runs": [run.name for run in runs], "removed": remove, "bytes": freed,
        "folders": found, "error": None,
    }  # fmt: skip


def gc_text(answer: dict[str, Any]) -> str:
    """What a person reads of it."""
    runs = ", ".join(answer["runs"]) or "none"
    within = f"{answer['work_dir']}/"
    if not answer["folders"]:
        return f"nothing to remove; runs looked at: {runs}"
    table = Table(box=SIMPLE_HEAD)
    table.add_column("folder", no_wrap=True, overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("why")
    table.add_column("")
    for entry in answer["folders"]:
        table.add_row(entry["folder"].removeprefix(within), _size(entry["bytes"]), entry["why"], entry["outcome"])
    total = f"{_size(answer['bytes'])} {'freed' if answer['removed'] else 'to be freed; --yes removes it'}"
    return rendered(table, f"{total}, in {answer['work_dir']}\nkept for the runs: {runs}")


def last_runs(work_dir: Path, keep: int) -> list[Path]:
    """The folders of the `keep` newest runs, by their last sign of life."""
    runs = [path for path in (work_dir / "runs").glob("*") if path.is_dir()]
    return sorted(runs, key=_last_sign, reverse=True)[:keep]


def referred(work_dir: Path, runs: Iterable[Path]) -> tuple[set[str], list[str]]:
    """Names of the store folders that `runs` refer to, and the runs of which that cannot be said wholly."""
    wanted: set[str] = set()
    unsure: list[str] = []
    for run in runs:
        wanted |= _written_down(run)
        planned = _planned(run, work_dir)
        if planned is None:
            unsure.append(run.name)
        else:
            wanted |= planned
    return _with_inputs_and_gates(work_dir / "store", wanted), unsure


def leftovers(work_dir: Path, wanted: set[str], *, unsure: bool) -> Iterator[Leftover]:
    """Folders of the store and of unfinished work that are not in `wanted`; only old and whole ones when `unsure`."""
    for folder in sorted((work_dir / "store").iterdir()):
        if folder.name in wanted or not folder.is_dir() or (unsure and _age(folder) < YOUNG):
            continue
        if folder.name.startswith(_SCRATCH):
            yield Leftover(folder, "left by a build that was killed")
        elif Manifest.read(folder) is None:
            yield Leftover(folder, "without a manifest")
        else:
            yield Leftover(folder, "none of these runs refers to it")
    if unsure:
        return
    for folder in _folders(work_dir / "partial"):
        if folder.name not in wanted:
            yield Leftover(folder, "unfinished, and no run goes on with it")
    for folder in _folders(work_dir / "downloads"):
        if folder.name not in wanted and _age(folder) > YOUNG:
            yield Leftover(folder, f"downloaded ({_names(folder)}), and in no run's recipe")


def _logps_left(work_dir: Path, usable: set[str] | None) -> Iterator[Leftover]:
    """Old folders of log-probs that are not in `usable`; none where that is None."""
    for folder in _folders(work_dir / "logps"):
        if usable is not None and folder.name not in usable and _age(folder) > YOUNG:
            yield Leftover(folder, "log-probs that no run can use")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _names(folder: Path) -> str:
    """Names of the files in a folder of downloads, without the notes on them."""
    return ", ".join(sorted(path.name for path in folder.glob("[!.]*") if path.suffix != ".json")) or "nothing"


def _written_down(run: Path) -> set[str]:
    """Folders in the run's summary and behind its links."""
    names = {Path(os.readlink(link)).name for link in (run / "stages").glob("*") if link.is_symlink()}
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        for entry in summary["stages"].values():
            folders = [entry["folder"], *(source["folder"] for source in entry.get("sources", []))]
            names |= {Path(folder).name for folder in folders if folder}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a run that has just begun
    return names


def _planned(run: Path, work_dir: Path) -> set[str] | None:
    """Folders that the run's recipe would find or make now; None where its sources are not to be seen from here."""
    names: set[str] = set()
    try:
        recipe = load_recipe(str(run / "recipe.yaml"))
        urls = [source.path for source in (*recipe.ingest.sources, *recipe.evaluate.sources) if is_url(source.path)]
        names |= {download_folder(url, work_dir).name for url in urls}
        store = replace(store_of(recipe, "", []), work_dir=work_dir, plan=True)
        for _, manifests in all_stages(_noted(plain_steps(), names), store, recipe):
            if any("missing" in manifest.provenance for manifest in manifests):
                return None
    except PrefstackError:
        return None
    return names


def _noted(steps: Steps, names: set[str]) -> Steps:
    """`steps` that put the name of every folder that they give into `names`: a stage may be made of several."""

    def noted(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            made = step(*given)
            names.update(manifest.folder.name for manifest in (made if isinstance(made, list) else [made]))
            return made

        return run

    return Steps(**{one.name: noted(getattr(steps, one.name)) for one in fields(Steps)})


def _with_inputs_and_gates(store: Path, wanted: set[str]) -> set[str]:
    """`wanted`, with all that it was made of and the results of the gates that judged it."""
    finished = {folder.name: found for folder in store.glob("*-*") if (found := Manifest.read(folder)) is not None}
    by_fingerprint: dict[str, set[str]] = {}
    for name, manifest in finished.items():
        by_fingerprint.setdefault(manifest.fingerprint, set()).add(name)
    kept, ahead = set(wanted), list(wanted)
    while ahead:
        made_of = finished.get(ahead.pop())
        for record in made_of.inputs.values() if made_of else ():
            new = by_fingerprint.get(record.fingerprint, set()) - kept
            kept |= new
            ahead.extend(new)
    fingerprints = {finished[name].fingerprint for name in kept if name in finished}
    for name, manifest in finished.items():
        # A gate is about what it judged, a card about its sample; the dumps that both came from are in many runs.
        about = [record for key, record in manifest.inputs.items() if key in ("subject", "sample")]
        if name.startswith(_ABOUT) and any(record.fingerprint in fingerprints for record in about):
            kept.add(name)
    return kept


def _remove(work_dir: Path, folder: Path) -> bool:
    """Remove `folder` unless a run holds its lock. It is renamed first: half of it never looks like all of it."""
    name = folder.name
    for scratch in _SCRATCH:
        name = name.removeprefix(scratch)
    downloaded = folder.parent == work_dir / "downloads"
    with _lock(folder / ".lock" if downloaded else work_dir / "locks" / f"{name}.lock") as ours:
        if not ours:
            return False
        if not folder.exists():  # it went with the folder that took its name
            return True
        doomed = folder.with_name(f".old-{name}") if not folder.name.startswith(".old-") else folder
        if doomed != folder:
            shutil.rmtree(doomed, ignore_errors=True)
            os.rename(folder, doomed)
        shutil.rmtree(doomed)
    return True


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Whether the lock of a stage folder is ours for the time of the context. The lock file itself stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _last_sign(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run / "summary.json", run / "run.log", run) if path.exists())


def _age(folder: Path) -> float:
    return time.time() - folder.stat().st_mtime


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
