"""All parts of a site's posts to Markdown, though a post should end the worker that converts it.

The converter is native code: a post may crash it, or make it ask for more memory than there is. A worker that dies is
asked again; a post at which two have died is left out, which makes it `unconvertible`, and is told of.
"""

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

from tasks.pairing.texts import TextJob, at_path, refused_path
from tasks.pairing.wanted import Part
from tasks.workers import WorkerDied, perform_all

_DEATHS: Final = 2  # at one post before it is left out: the first may have come from outside
_MOST_DEATHS: Final = 20  # of a site: more are no fault of single posts


def convert_all(parts: Sequence[Part], workers: int, tell: Callable[[str], None]) -> Iterator[int]:
    """Write the texts of `parts`; yields how many are done. `tell` hears of posts that are left out.

    Raises WorkerDied where a worker dies of no post, or workers die of too many.
    """
    deaths = Counter[tuple[str, int]]()
    while True:
        waiting = [part for part in parts if not part.out.is_file()]
        done = len(parts) - len(waiting)
        asked = [part.job for part in waiting]
        # Laid out when a worker is about to be free: no more of them than workers are in memory, or wait on the disk.
        answers = perform_all("texts", asked, workers, before=lambda number: waiting[number].lay_out())  # noqa: B023
        try:
            for part, _ in zip(waiting, answers, strict=True):
                part.put_together()
                done += 1
                yield done
            return
        except WorkerDied as died:
            job = cast(TextJob, died.request)
            post = _post_at(job)
            deaths[job["out"], post] += 1
            if not post or deaths.total() > _MOST_DEATHS:
                raise
            if deaths[job["out"], post] == _DEATHS:
                _refuse(job, post)
                tell(f"post {post} of {job['site']} is left out: {_DEATHS} workers died converting it, by {died.how}")


def _post_at(job: TextJob) -> int:
    """The id of the post that the worker was at; 0 where it was at none."""
    try:
        return int(struct.unpack("<q", at_path(job).read_bytes())[0])
    except (OSError, struct.error):
        return 0


def _refuse(job: TextJob, post: int) -> None:
    path = refused_path(job)
    known = json.loads(path.read_text()) if path.is_file() else []
    scratch = path.with_suffix(".refused.tmp")
    scratch.write_text(json.dumps([*known, post]))
    scratch.rename(path)
