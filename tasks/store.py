"""The store: one folder a stage result, found again by what it was made of.

    WORK_DIR/store/STAGE-<fingerprint>/     files, and manifest.json, written last: a folder with one is finished
    WORK_DIR/partial/STAGE-<fingerprint>/   what must survive an interruption: checkpoints, shards, byte ranges
    WORK_DIR/locks/                         one flock a folder, so that two runs never build the same one

A result is reused when its fingerprint matches and the inputs recorded in it have the bytes of the inputs in hand.
`kill -9` at any moment leaves the finished folder or nothing that looks finished.
"""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from tasks.errors import Surroundings
from tasks.folders import damage, disk_is_full, keep_partial, publish, stored_files, sync_tree, write_text
from tasks.manifest import MANIFEST, InputRecord, Manifest, fingerprint
from tasks.provenance import provenance

# The stage that a folder belongs to in the eyes of the user, where its name differs.
PART_OF: Final = {
    "source": "ingest", "card": "sample", "unseen": "evaluate", "generate": "evaluate", "judge": "evaluate",
    "benchmark": "evaluate", "outputs": "evaluate", "alpaca_eval": "evaluate", "results": "evaluate",
}  # fmt: skip


class Report(Protocol):
    """Where a stage says what it is doing. The terminal and Prefect listen; tests and libraries need not."""

    def message(self, stage: str, text: str) -> None: ...

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None: ...


class Silent:
    """A report that nobody reads."""

    def message(self, stage: str, text: str) -> None:
        pass

    def progress(self, stage: str, done: float, total: float | None, unit: str) -> None:
        pass


@dataclass(frozen=True)
class External:
    """An input from outside the store, known by the digest of its bytes."""

    digest: str

    def record(self) -> InputRecord:
        return InputRecord(fingerprint=self.digest, content=self.digest)


@dataclass
class Workspace:
    """What a stage's `build` gets: a folder to fill, a folder that survives, and somewhere to report."""

    stage: str
    folder: Path
    """Becomes the stage folder when `build` returns."""
    partial: Path
    """Kept when `build` dies, found again by the next try, removed after publishing."""
    report: Report
    provenance: dict[str, Any] = field(default_factory=dict)
    """Facts to record beside the commit and the versions: sources, hardware, ranks."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self.report.progress(self.stage, done, total, unit)

    def message(self, text: str) -> None:
        self.report.message(self.stage, text)


Build = Callable[[Workspace], dict[str, int]]


@dataclass(frozen=True)
class Store:
    """The stage folders under one work directory, as one run sees them."""

    work_dir: Path
    run: str = ""
    """Name of the run, recorded; a stage that this run has forced is not rebuilt again when the run is retried."""
    force: frozenset[str] = frozenset()
    verify: bool = False
    """Check digests, not only sizes, before reusing."""
    plan: bool = False
    """Build nothing: answer with what is there, and with planned manifests for the rest."""
    report: Report = field(default_factory=Silent)

    def stage(
        self,
        stage: str,
        version: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, Manifest | External],
        build: Build,
    ) -> Manifest:
        """The finished stage: found, or built now by `build`, which fills a folder and returns its counts.

        `config` is what bears on the result (`StageConfig.identity()`, the seed); it is hashed, with the inputs.
        """
        records = {name: given.record() for name, given in inputs.items()}
        name = fingerprint(stage, version, config, {key: record.fingerprint for key, record in records.items()})
        folder = self.work_dir / "store" / f"{stage}-{name}"
        unknown = any(isinstance(given, Manifest) and given.planned for given in inputs.values())
        if self.plan:
            found, _ = (None, None) if unknown else self._finished(folder, records)
            if found is not None and not self._must_rebuild(found):
                return found
            return Manifest(
                stage=stage, version=version, fingerprint=name, config=dict(config), inputs=records, files={},
                counts={}, seconds=0.0, provenance={}, folder=folder, planned=True,
            )  # fmt: skip
        with self._lock(folder.name, stage):
            found, fault = self._finished(folder, records)
            if found is not None and not self._must_rebuild(found):
                # Left by whoever was killed between publishing the folder and this.
                shutil.rmtree(self.work_dir / "partial" / folder.name, ignore_errors=True)
                return found
            return self._build(stage, version, dict(config), records, name, folder, build, fault)

    def _must_rebuild(self, found: Manifest) -> bool:
        if PART_OF.get(found.stage, found.stage) not in self.force:
            return False
        return not (self.run and found.provenance.get("forced_by") == self.run)

    def _finished(
        self, folder: Path, records: Mapping[str, InputRecord]
    ) -> tuple[Manifest, None] | tuple[None, str | None]:  # fmt: skip
        """The manifest in `folder` if it may be reused; else why it may not, where there is one."""
        manifest = Manifest.read(folder)
        if manifest is None:
            return None, None
        fault = damage(manifest, verify=self.verify)
        if fault is None and {key: record.content for key, record in manifest.inputs.items()} != {
            key: record.content for key, record in records.items()
        }:
            fault = "was made of inputs that have since come out different"
        if fault is not None:
            self.report.message(manifest.stage, f"{folder.name} {fault}: it has to be built again")
            return None, fault
        return manifest.model_copy(update={"reused": True}), None

    def _build(
        self, stage: str, version: int, config: dict[str, Any], records: dict[str, InputRecord], name: str,
        folder: Path, build: Build, fault: str | None,
    ) -> Manifest:  # fmt: skip
        partial = self.work_dir / "partial" / folder.name
        building = folder.parent / f".building-{folder.name}"
        shutil.rmtree(building, ignore_errors=True)  # the lock is ours: whoever left it is gone
        try:
            building.mkdir(parents=True)
            keep_partial(partial, records)
            work = Workspace(PART_OF.get(stage, stage), building, partial, self.report)
            start = time.monotonic()
            counts = build(work)
            seconds = round(time.monotonic() - start, 3)
            facts = provenance() | {"run": self.run} | work.provenance
            if PART_OF.get(stage, stage) in self.force:
                facts["forced_by"] = self.run
            if fault is not None:
                facts["built_again"] = f"the folder before {fault}"
            manifest = Manifest(
                stage=stage, version=version, fingerprint=name, config=config, inputs=records,
                files=stored_files(building), counts=counts, seconds=seconds, provenance=facts, folder=folder,
            )  # fmt: skip
            write_text(building / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
            sync_tree(building)
            publish(building, folder)
        except Exception as error:
            if disk_is_full(error):
                where = error.filename if isinstance(error, OSError) and error.filename else self.work_dir
                raise Surroundings(f"{stage}: the disk is full at {where}; free some space and run again") from error
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
        return manifest

    @contextmanager
    def _lock(self, name: str, stage: str) -> Iterator[None]:
        path = self.work_dir / "locks" / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open(path, "w")  # noqa: SIM115
        except OSError as error:
            raise Surroundings(f"{stage}: nothing can be written to {self.work_dir}: {error.strerror}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.report.message(stage, f"another run is building {name}: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)  # released by the kernel if the holder dies
            yield
