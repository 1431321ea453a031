"""Part files of a generation: what either engine has written, so that an interrupted one goes on where it was.

A JSON list of `{"model", "mode", "number", "ids", "stopped"}` a batch, named for the batch's first prompt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.jobs import AnswerBatch
from training.rank import this_rank


def write_part(parts: Path, batch: AnswerBatch, found: Sequence[dict[str, Any]]) -> None:
    """A file named for its first prompt, whole or not there."""
    place = parts / f"{batch.model}-{batch.mode}-{batch.numbers[0]:06d}.json"
    scratch = place.with_name(f".{place.name}.{this_rank()}")
    named = [{"model": batch.model, "mode": batch.mode} | one for one in found]
    scratch.write_text(json.dumps(named), encoding="utf-8")
    scratch.rename(place)
