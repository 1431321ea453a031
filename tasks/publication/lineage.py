"""Lineage: from the dump's checksum to the digest of the weights, without a clock, a path or a host in it.

in   the manifests of all stages
out  a dictionary for lineage.json, and the funnel: what came in and what was left at each step
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tasks.manifest import Manifest, digest_json, total

# Facts about a source that tell when or where it was read: two equal runs would differ in them.
_NOT_PORTABLE: Final = frozenset({"mtime", "written", "retrieved", "fetched", "seconds", "host", "folder_path"})


class Step(NamedTuple):
    """One row of the funnel."""

    stage: str
    label: str
    left: int
    lost: dict[str, int]
    """What was dropped on the way to this count, by reason; zeros left out."""


def lineage(
    name: str, stages: Mapping[str, Manifest], sources: Sequence[Manifest], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Every stage with what it was made of, its counts and the digest of its files."""
    trained = stages["train"]
    weights = {path: file.sha256 for path, file in sorted(trained.files.items()) if path.startswith("model/")}
    return {
        "name": name,
        "recipe": portable(recipe),
        "sources": [_stage(source) | {"source": source_facts(source)} for source in in_order(sources)],
        "stages": {stage: _stage(manifest) for stage, manifest in stages.items()},
        "weights": {"digest": digest_json(weights), "sha256": weights},
    }


def _stage(manifest: Manifest) -> dict[str, Any]:
    return {
        "stage": manifest.stage,
        "version": manifest.version,
        "fingerprint": manifest.fingerprint,
        "content": manifest.content,
        "config": portable(manifest.config),
        "inputs": {key: record.model_dump() for key, record in sorted(manifest.inputs.items())},
        "counts": manifest.counts,
    }


def in_order(sources: Sequence[Manifest]) -> list[Manifest]:
    """The sources by fingerprint, whatever order the recipe lists them in."""
    return sorted(sources, key=lambda source: source.fingerprint)


def source_facts(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says of where its input came from: file name, checksum, site, revision; no local path."""
    facts = manifest.provenance.get("source", {})
    if not isinstance(facts, Mapping):
        return {"source": portable(facts)}
    path = facts.get("path")
    local = isinstance(path, str) and "file" in facts and not path.lower().startswith(("http://", "https://"))
    kept = portable({key: value for key, value in facts.items() if not (local and key == "path")})
    assert isinstance(kept, dict)
    return kept


def portable(value: Any) -> Any:
    """`value` as it is on every machine: paths become file names, URLs lose passwords and queries."""
    if isinstance(value, Mapping):
        return {str(key): portable(one) for key, one in value.items() if key not in _NOT_PORTABLE}
    if isinstance(value, list | tuple):
        return [portable(one) for one in value]
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str):
        return _portable_text(value)
    return value


def _portable_text(text: str) -> str:
    if text.lower().startswith(("http://", "https://")):
        parts = urlsplit(text)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if text.startswith(("file://", "~")) or PurePosixPath(text).is_absolute():
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text


def funnel(stages: Mapping[str, Manifest], sources: Sequence[Manifest]) -> list[Step]:
    """From posts to training pairs; a step whose count nobody recorded, or that is yet to come, is left out."""
    ingested: dict[str, int] = {}
    for source in sources:
        for key, count in source.counts.items():
            ingested[key] = ingested.get(key, 0) + count
    paired = stages["pair"].counts
    deduped = stages["dedupe"].counts
    sampled = stages["sample"].counts
    tokenized = stages["tokenize"].counts if "tokenize" in stages else {}
    steps = [
        _step("ingest", "rows read", ingested, "rows", ()),
        _step("ingest", "questions", ingested, "questions", ("skipped",)),
        _step("ingest", "answers", ingested, "answers", ()),
        _step("pair", "pairs of answers to one question", paired, "considered", ()),
        _step("pair", "pairs with a preference", paired, "pairs", ("ties", "capped", "not_candidate", "dropped")),
        _step("dedupe", "pairs after duplicates", deduped, "kept", ("dropped",)),
        _step("sample", "held-out pairs", sampled, "held_out", ()),
        _step("sample", "training pairs drawn", sampled, "train", ("not_sampled",)),
        _step("tokenize", "training pairs as tokens", tokenized, "train", ("dropped",)),
        _step("tokenize", "held-out pairs as tokens", tokenized, "held_out", ()),
    ]
    if "unseen" in stages:
        label = "pairs from elsewhere to judge by"
        steps.append(_step("unseen", label, stages["unseen"].counts, "held_out", ("not_sampled", "dropped")))
    return [step for step in steps if step is not None]


def _step(stage: str, label: str, counts: Mapping[str, int], key: str, lost: Sequence[str]) -> Step | None:
    if key not in counts:
        return None
    reasons = {}
    for reason in lost:
        if counts.get(reason):
            reasons[reason] = counts[reason]
        elif total(counts, reason):
            reasons |= {name: count for name, count in counts.items() if name.startswith(reason + ".") and count}
    return Step(stage, label, counts[key], reasons)
