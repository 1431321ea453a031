"""Fingerprints and content digests: what moves them and what must not."""

import hashlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.config import StageConfig
from tasks.dedupe import DedupeConfig
from tasks.manifest import Manifest, StoredFile, canonical_json, fingerprint, reasons, total
from training.config import TrainConfig

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def manifest(files: dict[str, str]) -> Manifest:
    stored = {name: StoredFile(size=1, sha256=digest) for name, digest in files.items()}
    return Manifest(
        stage="pair", version=1, fingerprint="f" * 16, config={}, inputs={}, files=stored, counts={}, seconds=1.0,
        provenance={}, folder=Path("anywhere"),
    )  # fmt: skip


def test_a_fingerprint_is_the_digest_of_canonical_json() -> None:
    text = '{"config":{"size":3},"inputs":{"of":"abc"},"stage":"pair","version":1}'
    assert fingerprint("pair", 1, {"size": 3}, {"of": "abc"}) == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(config: dict[str, object]) -> None:
    turned = dict(reversed(list(config.items())))
    assert fingerprint("pair", 1, config, {}) == fingerprint("pair", 1, turned, {})


@given(JSON, JSON)
def test_different_values_have_different_text(first: object, second: object) -> None:
    if canonical_json(first) == canonical_json(second):
        assert repr(first) == repr(second) or first == second


def test_what_json_cannot_hold_cannot_be_hashed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint("train", 1, {"beta": math.inf}, {})


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_configs_refuse_infinity_and_nan(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        TrainConfig(learning_rate=value)
    with pytest.raises(ValidationError):
        DedupeConfig(threshold=value)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        DedupeConfig.model_validate({"treshold": 0.8})


def test_incidental_keys_stay_out_of_the_identity() -> None:
    class Settings(StageConfig):
        incidental = frozenset({"cores"})
        size: int = 3
        cores: int = 1

    assert Settings(cores=64).identity() == {"size": 3}
    kept = TrainConfig().identity()
    assert kept == TrainConfig(ranks=1, zero_stage=0, save_every=7, resume="fresh", tokens_per_pack=99).identity()
    assert kept != TrainConfig(beta=0.2).identity()


def test_content_is_names_and_bytes_without_logs() -> None:
    whole = manifest({"a.parquet": "1", "model/b.bin": "2", "train.log": "3"})
    assert whole.content == manifest({"model/b.bin": "2", "a.parquet": "1", "train.log": "4", "more.log": "5"}).content
    assert whole.content != manifest({"a.parquet": "1", "model/b.bin": "9", "train.log": "3"}).content
    assert whole.content != manifest({"a.parquet": "1", "model/c.bin": "2", "train.log": "3"}).content


def test_counts_are_summed_by_prefix() -> None:
    counts = {"pairs": 10, "dropped.empty": 2, "dropped.same": 3, "droppedness": 100}
    assert total(counts, "dropped") == 5
    assert reasons("dropped", ["empty", "same"], {"same": 4}) == {"dropped.empty": 0, "dropped.same": 4}
