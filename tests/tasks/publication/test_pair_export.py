"""The exported pairs: read back by `datasets` without a network, and by TRL's own data step, to the same tokens."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from huggingface_hub import DatasetCard

from tasks.manifest import Manifest
from tasks.publication.pair_export import EXPORT_SCHEMA
from tasks.publish import publish
from tests.tasks.test_publish import CONFIG, published


@pytest.fixture(scope="module")
def made(finished: Any) -> Manifest:
    return published(finished)


def test_every_pair_that_was_used_is_there_word_for_word(made: Manifest, finished: Any) -> None:
    for split in ("train", "held_out"):
        path = made.path(f"pairs/{split}.parquet")
        assert pl.read_parquet_schema(path) == EXPORT_SCHEMA
        pairs = pl.read_parquet(finished.stages["sample"].path(f"{split}.parquet")).to_dicts()
        assert pl.read_parquet(path).to_dicts() == [
            {
                "pair_id": pair["pair_id"],
                "prompt": [{"role": "user", "content": pair["prompt"]}],
                "chosen": [{"role": "assistant", "content": pair["chosen"]}],
                "rejected": [{"role": "assistant", "content": pair["rejected"]}],
            }
            for pair in pairs
        ]


def test_datasets_reads_the_folder_by_its_card(made: Manifest, finished: Any, tmp_path: Path) -> None:
    from datasets import load_dataset

    found = load_dataset(str(made.path("pairs")), cache_dir=str(tmp_path))
    assert {split: rows.num_rows for split, rows in found.items()} == {"train": made.counts["pairs"], "held_out": 30}
    card = DatasetCard.load(made.path("pairs/README.md"))
    assert card.data.license == ["cc-by-sa-3.0", "cc-by-sa-4.0"]
    posts = pl.read_csv(made.path("pairs/attribution.csv"), infer_schema=False)
    assert f"names all\n{posts.height} posts" in card.text
    wanted = {
        (pair["site"], str(pair[key]))
        for split in ("train", "held_out")
        for pair in pl.read_parquet(finished.stages["sample"].path(f"{split}.parquet")).to_dicts()
        for key in ("question_id", "chosen_id", "rejected_id")
    }
    assert set(posts.select("site", "post_id").rows()) == wanted and posts.height == len(wanted)


def test_trl_makes_the_tokens_of_it_that_the_model_was_trained_on(
    made: Manifest, finished: Any, tmp_path: Path
) -> None:
    """TRL's own data step with the published tokenizer and its chat template, on whole answers."""
    from datasets import load_dataset, load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    found = load_dataset(str(made.path("pairs")), cache_dir=str(tmp_path / "cache"))
    model = made.path("model")
    arguments = DPOConfig(
        output_dir=str(tmp_path / "out"), max_length=None, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(model), args=arguments, train_dataset=found["train"],
        processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    ours = {row["pair_id"]: row for row in load_from_disk(str(finished.stages["tokenize"].path("train")))}
    end, compared = trainer.processing_class.eos_token_id, 0
    for row in trainer.train_dataset:
        mine = ours[row["pair_id"]]
        assert row["prompt_ids"] == mine["prompt_ids"]
        for side in ("chosen_ids", "rejected_ids"):
            if mine[side][-1] == end:  # the others were cut by tokenize, on purpose
                assert row[side] == mine[side]
                compared += 1
    assert compared > 20


def test_the_pairs_stay_at_home_where_the_recipe_says_so(finished: Any) -> None:
    config = CONFIG.model_copy(update={"pairs": False})
    folder = publish(finished.store, finished.stages, finished.sources, config, finished.recipe)
    assert not [name for name in folder.files if name.startswith("pairs/")]
