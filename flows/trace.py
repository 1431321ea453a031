"""`prefstack trace`: where a pair came from, and what became of it at every stage of a run."""

from pathlib import Path
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.recipe import STAGES
from flows.runs import find_run
from flows.show import rendered
from tasks.errors import RecipeError
from tasks.manifest import Manifest

ROLES = ("question", "chosen", "rejected")


def trace_pair(pair_id: str, run: str, work_dir: Path) -> dict[str, Any]:
    """Posts, links, authors, licences, archive and checksum, and the fate at every stage; RecipeError if unknown."""
    folder = find_run(run, work_dir)
    stages = {
        link.name: manifest
        for link in sorted((folder / "stages").glob("*"))
        if (manifest := Manifest.read(link.resolve())) is not None
    }
    fate: dict[str, Any] = {}
    row = None
    if "pair" in stages:
        row = _row(stages["pair"].path("pairs.parquet"), pair_id)
        fate["pair"] = _kept_or_dropped(stages["pair"], row, pair_id)
    if "dedupe" in stages and row is not None:
        kept = _row(stages["dedupe"].path("pairs.parquet"), pair_id)
        fate["dedupe"] = _kept_or_dropped(stages["dedupe"], kept, pair_id)
        if kept is not None:
            fate["dedupe"]["cluster"] = kept["cluster"]
    split = None
    if "sample" in stages and fate.get("dedupe", {}).get("outcome") == "kept":
        split = _split(stages["sample"], pair_id)
        fate["sample"] = {"outcome": split or "not_sampled"}
    if split is not None:
        fate |= _after_the_sample(stages, split, pair_id)
    if row is None and fate.get("pair", {}).get("outcome") in (None, "unknown"):
        raise RecipeError(
            f"pair {pair_id!r} is not among the pairs or the dropped rows of run {folder.name}: a tie, a pair over the "
            "cap or one that was no candidate is counted only, or the id is of another source"
        )
    for link in sorted((folder / "stages").glob("*")):
        if link.name in STAGES and link.name not in stages:
            fate[link.name] = {"outcome": "no longer in the store: run its recipe again to see it"}
    sources = [manifest for name, manifest in stages.items() if name == "ingest" or name.startswith("ingest-")]
    return {
        "pair_id": pair_id,
        "run": folder.name,
        "posts": [] if row is None else posts_of(row),
        "source": _source_of(pair_id, row, sources),
        "stages": fate,
    }


def posts_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The three posts of a pair, with links that are null where the source has no ids."""
    site = row["site"]
    posts = []
    for role in ROLES:
        post_id = row[f"{role}_id"]
        author_id = row[f"{role}_author_id"]
        letter = "q" if role == "question" else "a"
        posts.append(
            {
                "role": role,
                "id": post_id,
                "url": f"https://{site}/{letter}/{post_id}" if site and post_id is not None else None,
                "author": row[f"{role}_author"],
                "author_url": f"https://{site}/users/{author_id}" if site and author_id is not None else None,
                "license": row[f"{role}_license"],
                "license_stated": row[f"{role}_license_stated"],
                "score": row[f"{role}_score"],
                "accepted": None if role == "question" else row[f"{role}_accepted"],
                "created": _text(row["created" if role == "question" else f"{role}_created"]),
            }
        )
    return posts


def trace_text(answer: dict[str, Any]) -> str:
    """What a person reads of a trace."""
    posts = Table(box=SIMPLE_HEAD, title=f"pair {answer['pair_id']} in run {answer['run']}", title_justify="left")
    posts.add_column("post", no_wrap=True)
    posts.add_column("votes", no_wrap=True, justify="right")
    posts.add_column("created", no_wrap=True)
    posts.add_column("author, licence, links", overflow="fold")
    for post in answer["posts"]:
        licence = post["license"] or "unknown licence"
        if post["license"] and not post["license_stated"]:
            licence += " (by date)"
        named = f"{post['author'] or 'unknown author'}, {licence}"
        posts.add_row(
            post["role"] + (" ✓" if post["accepted"] else ""), "" if post["score"] is None else str(post["score"]),
            (post["created"] or "")[:10], "\n".join(filter(None, (named, post["url"], post["author_url"]))),
        )  # fmt: skip
    fate = Table(box=SIMPLE_HEAD)
    fate.add_column("stage")
    fate.add_column("what became of it", overflow="fold")
    for stage, entry in answer["stages"].items():
        facts = ", ".join(
            f"{name.replace('_', ' ')} {f'{value:.2f}' if isinstance(value, float) else value}"
            for name, value in entry.items()
            if name != "outcome" and value is not None
        )
        fate.add_row(stage, entry["outcome"] + (f": {facts}" if facts else ""))
    source = answer["source"]
    text = "source unknown" if source is None else f"source  {source.get('path')}\nsha256  {source.get('sha256')}"
    return rendered(posts if answer["posts"] else posts.title or "", fate, text)


def _after_the_sample(stages: dict[str, Manifest], split: str, pair_id: str) -> dict[str, Any]:
    fate: dict[str, Any] = {}
    if "tokenize" in stages:
        dropped = _row(stages["tokenize"].path("dropped.parquet"), pair_id)
        if dropped is not None:
            fate["tokenize"] = {"outcome": "dropped", "reason": dropped["reason"]}
            return fate
        fate["tokenize"] = {"outcome": "kept"}
    if "reference" in stages:
        scored = _row(stages["reference"].path(f"{split}.parquet"), pair_id)
        if scored is not None:
            fate["reference"] = {"outcome": "scored"} | {key: scored[key] for key in scored if key != "pair_id"}
    if "train" in stages and split == "train":
        fate["train"] = {"outcome": "trained on"}
    if "evaluate" in stages and split == "held_out":
        judged = _row(stages["evaluate"].path("rows.parquet"), pair_id)
        if judged is not None:
            right = "preferred the chosen answer" if judged["margin"] > 0 else "did not prefer the chosen answer"
            fate["evaluate"] = {"outcome": right, "margin": judged["margin"]}
    return fate


def _split(sampled: Manifest, pair_id: str) -> str | None:
    for split in ("train", "held_out"):
        if _row(sampled.path(f"{split}.parquet"), pair_id) is not None:
            return split
    return None


def _kept_or_dropped(manifest: Manifest, row: dict[str, Any] | None, pair_id: str) -> dict[str, Any]:
    if row is not None:
        return {"outcome": "kept"}
    dropped = _row(manifest.path("dropped.parquet"), pair_id)
    if dropped is None:
        return {"outcome": "unknown"}
    return {"outcome": "dropped"} | {
        key: value for key, value in dropped.items() if key != "pair_id" and value is not None
    }


def _row(path: Path, pair_id: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found = pl.scan_parquet(path).filter(pl.col("pair_id") == pair_id).head(1).collect()
    return found.row(0, named=True) if found.height else None


def _source_of(pair_id: str, row: dict[str, Any] | None, sources: list[Manifest]) -> dict[str, Any] | None:
    """What the manifest of the pair's source recorded: path, size and sha256 of what was read."""
    name = pair_id.partition("/")[0]
    site = row["site"] if row is not None else name
    known = [dict(manifest.provenance["source"]) for manifest in sources if "source" in manifest.provenance]
    for source in known:
        # A pair without ids is called after its source; any other is of a site.
        if source.get("name") == name or (site is not None and site in (source.get("site"), *source.get("sites", []))):
            return source
    return known[0] if len(known) == 1 else None


def _text(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()
