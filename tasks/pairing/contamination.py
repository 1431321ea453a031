"""Which texts share a stretch of words with a benchmark's prompts, so that nobody is tested on what was trained.

in   files of prompts (`dedupe.decontaminate`): text with one a line, JSON Lines, a JSON array, gzip of either, Parquet
out  for each normalised text that shares `ngram` words in a row with a prompt: which one

Words are runs of letters and digits, case folded, so that neither markup nor punctuation hides them; the address of a
link or an image is none of them, nor are the tags of what is raised or lowered. A prompt of fewer words is met only by
a text of just these words. Stretches are compared as the 64-bit hashes of duplicates/shingles.py:
12 bytes for each word of the benchmark, and the texts pass by in batches.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from tasks.config import StageConfig
from tasks.digests import remembered_sha256
from tasks.duplicates.content import key_series, normalised
from tasks.duplicates.shingles import U64, blocks, shingled
from tasks.errors import InputError
from tasks.sources.data_files import SUFFIXES, find_files, read_rows

CONTAMINATED: Final = "contaminated"
WORDS: Final = 2  # bump when other words would be found in the same text
_WORD: Final = re.compile(r"[^\W_]+")
_UNSEEN: Final = re.compile(
    r"(?<=\])\((?:https?|mailto):[^\s()]*+(?:\([^\s()]*+\)[^\s()]*+)*+(?: \"[^\"]{0,300}\")?\)|</?su[bp]>"
)
_FILTER: Final = 1 << 20  # least entries of the table that is asked before the sorted hashes; 16 to a hash otherwise


class DecontaminateConfig(StageConfig):
    """Benchmark prompts that no pair may share words with."""

    paths: list[str] = Field(default_factory=list)
    """Files of prompts, or folders: text with one a line, JSON Lines, JSON, gzip of either, Parquet; [] = off."""
    column: str = "prompt"
    """Where a row of JSON or Parquet has the prompt."""
    ngram: int = Field(13, ge=5, le=100)
    """Words in a row that are too many to share."""
    answers: bool = True
    """Look at the answers too, not at the prompt alone."""


class BenchmarkFile(NamedTuple):
    """One file of prompts. Its name stands among the dropped pairs; where it lies bears on nothing."""

    name: str
    sha256: str
    path: Path


def benchmark_files(config: DecontaminateConfig, work_dir: Path) -> list[BenchmarkFile]:
    """The files by name, in whatever order they are given. InputError where one cannot be read."""
    found = []
    for given in config.paths:
        files = find_files(given)
        for path in files.paths:
            name = files.name(path).strip() or path.name
            found.append(BenchmarkFile(name, remembered_sha256(path, work_dir), path))
    return sorted(set(found))


@dataclass
class Benchmark:
    """The stretches of words of all prompts."""

    ngram: int
    hashes: U64
    """Sorted, each once."""
    owners: NDArray[np.uint32]
    """For each hash the number of the first prompt that has it."""
    places: list[str]
    """For each prompt where it stands: file and line or row."""
    met: dict[bytes, int] = field(default_factory=dict)
    """Content key of each text that shares a stretch, and the number of the first prompt that it shares it with."""

    def __post_init__(self) -> None:
        # A table in which most stretches are told apart by one look, where a search would take twenty.
        size = max(_FILTER, 1 << int(16 * len(self.hashes)).bit_length())
        self._mask = np.uint64(size - 1)
        self._table = np.zeros(size, dtype=bool)
        self._table[self.hashes & self._mask] = True

    def look(self, texts: Mapping[bytes, str]) -> None:
        """Note which of the normalised `texts`, by content key, share a stretch with a prompt."""
        named = [(key, words) for key, text in texts.items() if (words := in_words(text))]
        for start, end in blocks([words for _, words in named]):
            found = shingled([words for _, words in named[start:end]], self.ngram)
            maybe = np.flatnonzero(self._table[found.hashes & self._mask])
            at = np.searchsorted(self.hashes, found.hashes[maybe])
            at[at == len(self.hashes)] = 0
            same = self.hashes[at] == found.hashes[maybe]
            of_text = np.searchsorted(found.starts, maybe[same], side="right") - 1
            for text, prompt in zip(of_text.tolist(), self.owners[at[same]].tolist(), strict=True):
                key = named[start + text][0]
                self.met[key] = min(prompt, self.met.get(key, prompt))

    def verdicts(self, rows: pl.DataFrame, *, answers: bool) -> pl.DataFrame:
        """`row`, `reason`, `keeper` (none), `note` of the rows whose texts were met.

        rows  what `keyed_rows` gives (tasks/duplicates/exact_duplicates.py)
        note  the first text of the pair that was met, and the prompt
        """
        met = pl.DataFrame(
            {"key": key_series(self.met), "place": [self.places[prompt] for prompt in self.met.values()]},
            schema={"key": pl.UInt128, "place": pl.String},
        )
        notes = []
        for side in ("prompt", "chosen", "rejected") if answers else ("prompt",):
            beside = rows.select(key=side).join(met, on="key", how="left", maintain_order="left")
            said = pl.format(f"{side} shares {self.ngram} words or all with {{}}", "place")
            notes.append(beside.select(said.alias(side))[side])
        note = pl.DataFrame(notes).select(note=pl.coalesce(pl.all()))["note"]
        return rows.select("row", reason=pl.lit(CONTAMINATED), keeper=pl.lit(None, pl.UInt32), note=note).filter(
            pl.col("note").is_not_null()
        )


def read_benchmark(files: Sequence[BenchmarkFile], config: DecontaminateConfig) -> Benchmark:
    """The stretches of all prompts in `files`. InputError where a row has no prompt, or there is none at all."""
    places: list[str] = []
    hashes: list[U64] = []
    owners: list[NDArray[np.uint32]] = []
    texts: list[str] = []

    def take_in() -> None:
        first = len(places) - len(texts)
        for start, end in blocks(texts):
            found = shingled(texts[start:end], config.ngram)
            sizes = np.diff(found.starts, append=len(found.hashes))
            hashes.append(found.hashes)
            owners.append(np.repeat(np.arange(first + start, first + end, dtype=np.uint32), sizes))
        texts.clear()

    for file in files:
        for place, text in _prompts(file.path, config.column):
            if words := in_words(normalised(text)):
                places.append(f"{file.name} {place}")
                texts.append(words)
        take_in()
    if not places:
        raise InputError(f"dedupe.decontaminate: {', '.join(file.name for file in files)} have no prompt")
    every, first = np.unique(np.concatenate(hashes), return_index=True)
    return Benchmark(config.ngram, every, np.concatenate(owners)[first], places)


def in_words(text: str) -> str:
    """The words that a reader sees of a normalised Markdown text, a blank between them."""
    return " ".join(_WORD.findall(_UNSEEN.sub("", text)))


def _prompts(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Where each prompt of a file stands, and the prompt."""
    if not path.name.lower().endswith(SUFFIXES):
        try:
            with open(path, encoding="utf-8-sig", newline="\n") as lines:
                yield from ((f"line {number}", line) for number, line in enumerate(lines, start=1))
        except UnicodeDecodeError as error:
            raise InputError(f"dedupe.decontaminate: {path} is no text in UTF-8: {error.reason}") from error
        return
    for row in read_rows(find_files(str(path)), [column], max_ratio=100.0):
        text = row.values.get(column)
        if not isinstance(text, str):
            there = ", ".join(sorted(row.values)) or "nothing"
            if column in row.values:
                there = f"{str(text)[:40]}, which is none"
            raise InputError(
                f"dedupe.decontaminate: {path}, {row.place} has no text in column {column!r}, but {there}; name the "
                "prompt's column with dedupe.decontaminate.column"
            )
        yield row.place, text
