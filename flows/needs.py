"""What a recipe takes, for `prefstack plan`: asked of tasks/needs.py for this host, and put into words."""

import os
from collections.abc import Mapping
from typing import Any

from flows.preflight import devices
from flows.recipe import Recipe
from tasks.errors import PrefstackError
from tasks.manifest import Manifest
from tasks.needs import H100_BYTES, Places, Settings, needs


def needs_of(recipe: Recipe, built: Mapping[str, Manifest]) -> dict[str, Any]:
    """What the training of `recipe` takes. `built` holds the stages that are finished, by name."""
    settings = Settings(
        recipe.model, recipe.train, recipe.sample.size, recipe.sample.held_out, recipe.pair.candidates,
        recipe.tokenize.max_length,
    )  # fmt: skip
    return needs(settings, built, _places(recipe.train.ranks))


def _places(ranks: int) -> Places:
    """This host's CPU, and its GPU or else an H100."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        here = devices()
    except PrefstackError:  # a driver that does not answer is the training's business, not the plan's
        here = []
    gpu = (here[0].name, here[0].total * 2**20) if here else ("H100", H100_BYTES)
    return {"cpu": ("cpu", host // ranks), gpu[0]: ("cuda", gpu[1])}


def needs_text(need: Mapping[str, Any]) -> list[str]:
    """One line for each thing that is needed."""
    steps = "as many steps as the pairs give" if need["steps"] is None else f"{need['steps']:,} optimizer steps"
    lines = [f"training: {steps} on {need['ranks']} ranks, ZeRO {need['zero_stage']}, {need['precision']}"]
    if need["memory"] is None:
        return [*lines, "memory, time and disk: the model's shape is not known before it is here"]
    for name, memory in need["memory"].items():
        packs = f"packs of {memory['tokens_per_pack']:,} tokens, {'with' if memory['recompute'] else 'no'} recompute"
        verdict = "" if memory["fits"] else f"; does not fit: {memory['reason']}"
        parts = ", ".join(f"{part} {_gb(size)}" for part, size in memory["parts"].items() if size >= 0.05e9)
        lines.append(
            f"memory a rank on {name}: {_gb(memory['bytes'])} of {_gb(memory['available'])} ({packs}){verdict}"
        )
        lines.append(f"  {parts}")
        if memory["host_bytes"]:
            whole = need["ranks"] * memory["host_bytes"]
            lines.append(f"  of the host's memory {_gb(memory['host_bytes'])} a rank, {_gb(whole)} for all (offload)")
    tokens = need["tokens_per_pair"]
    for name, seconds in (need["seconds"] or {}).items():
        if not seconds:
            continue
        parts = ", ".join(f"{part} {_hours(seconds[part])}" for part in ("reference", "train", "evaluate"))
        source = "measured" if tokens["measured"] else "assumed"
        lines.append(
            f"time on {name}: {parts}, at {seconds['rate'] / 1e12:,.2f} TFLOP/s and {tokens['mean']:,.0f} tokens a pair"
            f" ({source})"
        )
    if need["disk"] is not None:
        disk = {part: size for part, size in need["disk"].items() if part != "total"}
        parts = ", ".join(f"{part.replace('_', ' ')} {_gb(size)}" for part, size in disk.items())
        lines.append(f"disk: {_gb(need['disk']['total'])} ({parts}), and what is read of the dumps")
    return lines


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
