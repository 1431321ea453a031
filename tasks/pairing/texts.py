"""The texts of posts, each turned into Markdown once.

in   the ids and the HTML of posts (tasks/pairing/exchange.py)
out  their Markdown in the same order, each with 1 where it is complete and 0 where it is not

It runs in a worker. Which post it is at stands beside the output, so that one which ends the worker can be told, and be
left out the next time (tasks/pairing/conversion.py).
"""

import json
import mmap
import struct
from pathlib import Path
from typing import TypedDict

from tasks.pairing.exchange import read_texts, write_texts
from tasks.pairing.markdown import to_markdown


class TextJob(TypedDict):
    """The posts of one part."""

    bodies: str
    site: str
    out: str


def convert_texts(job: TextJob) -> int:
    """Write the Markdown of the posts of one part; how many there are."""
    ids, bodies = read_texts(Path(job["bodies"]))
    refused = set(json.loads(refused_path(job).read_text())) if refused_path(job).is_file() else set()
    complete, texts = [], []
    with open(at_path(job), "w+b") as handle:
        handle.truncate(8)
        with mmap.mmap(handle.fileno(), 8) as at:  # survives the process, and costs no call of the system
            for number, body in zip(ids, bodies, strict=True):
                at[:] = struct.pack("<q", number)
                text, whole = ("", False) if number in refused else to_markdown(body.decode(), job["site"])
                complete.append(int(whole))
                texts.append(text.encode())
            at[:] = bytes(8)
    write_texts(Path(job["out"]), complete, texts)
    return len(texts)


def at_path(job: TextJob) -> Path:
    """The file with the id of the post that is being converted: eight bytes, 0 before the first and after the last."""
    return Path(job["out"]).with_suffix(".at")


def refused_path(job: TextJob) -> Path:
    """The file with the ids of posts that are not to be tried: a JSON list."""
    return Path(job["out"]).with_suffix(".refused")
