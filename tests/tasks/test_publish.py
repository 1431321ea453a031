"""The published folder: loads, reads well, names everybody, and is the same bytes wherever it is made."""

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from lxml import html
from markdown_it import MarkdownIt

from tasks.evaluate import EvaluateConfig, evaluate
from tasks.evaluation.verdict import findings
from tasks.manifest import Manifest, digest_json
from tasks.pairs import PAIR_SCHEMA
from tasks.publish import PublishConfig, publish
from tasks.reports.escaping import as_markdown

Make = Callable[..., Any]
CONFIG = PublishConfig(name="tiny-dpo", license="apache-2.0")


def published(run: Any, config: PublishConfig = CONFIG, waive: dict[str, str] | None = None) -> Manifest:
    if "evaluate" not in run.stages:
        run.stages["evaluate"] = evaluate(
            run.store, run.stages["train"], run.stages["tokenize"], run.stages["reference"], run.stages["sample"],
            EvaluateConfig(bootstrap=50), run.train, 42,
        )  # fmt: skip
    recipe = run.recipe | ({"gates": {"waive": waive}} if waive else {})
    return publish(run.store, run.stages, run.sources, config, recipe)


@pytest.fixture
def run(finished: Any) -> Any:
    return finished


@pytest.fixture(scope="module")
def made(finished: Any) -> Manifest:
    return published(finished)


def test_another_work_folder_gives_the_same_bytes(
    made: Manifest, run: Any, run_until_train: Make, tmp_path: Path
) -> None:
    other = run_until_train(tmp_path / "elsewhere")
    again = published(other)
    assert other.stages["evaluate"].files == run.stages["evaluate"].files  # plots and metrics too
    assert again.files == made.files
    assert again.fingerprint == made.fingerprint


def test_no_file_holds_a_path_or_a_host(made: Manifest, run: Any) -> None:
    hosts = [str(run.store.work_dir), os.uname().nodename, str(Path.home())]
    for name in made.files:
        if not name.endswith((".safetensors", ".png")):
            if name.endswith(".parquet"):
                text = str(pl.read_parquet(made.path(name)).to_dicts())
            else:
                text = re.sub(r"base64,[^\"]*", "", made.path(name).read_text(encoding="utf-8"))
            assert [host for host in hosts if re.search(rf"(?<!\w){re.escape(host)}(?!\w)", text)] == [], name


def test_transformers_loads_the_folder_and_the_card_tells_how(made: Manifest) -> None:
    card = made.path("model/README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    program = (
        code[1].replace('"tiny-dpo"', repr(str(made.path("model")))).replace("max_new_tokens=256", "max_new_tokens=3")
    )
    names: dict[str, Any] = {}
    exec(program, names)
    rendered = names["tokenizer"].decode(names["prompt"]["input_ids"][0])
    assert rendered == "<|user|>\nWhy does my bread not rise?\n<|assistant|>\n"
    assert "<|user|>\nYour message here!\n<|assistant|>\n```" in card


def test_the_weights_are_those_of_training(made: Manifest, run: Any) -> None:
    trained = run.stages["train"]
    for name, file in trained.files.items():
        if name.startswith("model/"):
            assert made.files[name] == file
    assert (made.path("model/model.safetensors")).samefile(trained.path("model/model.safetensors"))  # no second copy


def test_the_card_is_one_that_a_hub_reads(made: Manifest) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(made.path("model/README.md"))
    assert card.data.license == "apache-2.0"
    assert card.data.model_name == "tiny-dpo"
    assert card.data.training_data_license == ["cc-by-sa-3.0", "cc-by-sa-4.0"]
    metrics = {result.metric_type: result for result in card.data.eval_results}
    assert set(metrics) >= {"accuracy", "length_baseline_accuracy", "margin", "loss"}
    for result in metrics.values():
        assert result.metric_args["low"] <= result.metric_value <= result.metric_args["high"]
    assert yaml.safe_load(str(card.data)) == yaml.safe_load(card.content.split("---\n")[1])  # nothing is lost
    assert "- learning_rate: 0.0001\n" in card.text
    assert "- optimizer: Adam with betas=(0.9, 0.999) and epsilon=1e-08\n" in card.text
    assert "| `learning_rate` | 0.0001 | 5e-07 |" in card.text


def test_without_a_licence_in_the_recipe_it_is_the_start_models_or_none_that_a_hub_knows(run: Any) -> None:
    from huggingface_hub import ModelCard

    def card(stated: str | None) -> Any:
        model = run.stages["model"]
        source = {"folder": "start", "license": stated}
        stages = {**run.stages, "model": model.model_copy(update={"provenance": {"source": source}})}
        made = publish(run.store, stages, run.sources, PublishConfig(name="tiny-dpo", pairs=False), run.recipe)
        return ModelCard.load(made.path("model/README.md"))

    stated, unstated = card("cc-by-nc-4.0"), card(None)
    assert (stated.data.license, unstated.data.license) == ("cc-by-nc-4.0", "other")
    assert "whose card states cc-by-nc-4.0" in stated.text and "whose card states no licence" in unstated.text


def test_attribution_names_every_post_of_every_training_pair(made: Manifest, run: Any) -> None:
    with open(made.path("attribution.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = pl.read_parquet(run.stages["sample"].path("train.parquet"))
    wanted = {
        (pair["site"], str(pair[key]))
        for pair in pairs.to_dicts()
        for key in ("question_id", "chosen_id", "rejected_id")
    }
    assert {(row["site"], row["post_id"]) for row in rows} == wanted
    assert len(rows) == len(wanted) == made.counts["posts"]
    assert "'=1+1" in {row["author"] for row in rows}
    assert {row["license_basis"] for row in rows} == {"stated", "worked out"}


def test_train_pair_ids_are_the_rows_that_were_trained_on(made: Manifest, run: Any) -> None:
    ids = made.path("train_pair_ids.txt").read_text(encoding="utf-8").splitlines()
    assert ids == sorted(pl.read_parquet(run.stages["sample"].path("train.parquet"))["pair_id"])
    assert len(ids) == made.counts["pairs"] == run.stages["tokenize"].counts["train"]


def test_lineage_leads_from_the_dumps_checksum_to_the_weights(made: Manifest, run: Any) -> None:
    lineage = json.loads(made.path("lineage.json").read_text(encoding="utf-8"))
    assert lineage["sources"][0]["source"]["sha256"] == "ab" * 32
    assert lineage["sources"][0]["source"]["file"] == "bread.example.com.7z"
    assert "path" not in lineage["sources"][0]["source"]
    fingerprints = {facts["fingerprint"] for facts in lineage["stages"].values()} | {run.sources[0].fingerprint}
    for stage in ("pair", "dedupe", "sample", "tokenize", "train", "evaluate"):
        inputs = lineage["stages"][stage]["inputs"].values()
        assert any(record["fingerprint"] in fingerprints for record in inputs), stage
    weights = {name: file.sha256 for name, file in run.stages["train"].files.items() if name.startswith("model/")}
    assert lineage["weights"] == {"digest": digest_json(weights), "sha256": weights}


def test_the_report_fetches_nothing_and_runs_nothing(made: Manifest) -> None:
    page = html.fromstring(made.path("report.html").read_text(encoding="utf-8"))
    assert page.xpath("//script | //iframe | //object | //link | //form | //style[contains(., 'url(')]") == []
    assert page.xpath("//@*[starts-with(name(), 'on')]") == []
    assert all(source.startswith("data:image/png;base64,") for source in page.xpath("//@src"))
    assert all(
        link.startswith(("#", "https://bread.example.com/", "https://tea.example.com/"))
        for link in page.xpath("//@href")
    )
    assert len(page.xpath("//img")) >= 10
    assert page.xpath("//meta[@name='viewport']")


def test_hostile_texts_and_names_are_shown_as_they_are(made: Manifest, run: Any) -> None:
    page = html.fromstring(made.path("report.html").read_text(encoding="utf-8"))
    held_out = {pair["pair_id"]: pair for pair in run.held_out().to_dicts()}
    examples = page.xpath("//article")
    assert len(examples) == 6
    for example in examples:
        pair = held_out[example.xpath(".//code")[0].text]
        text = " ".join(example.text_content().split())
        for name in ("prompt", "chosen", "rejected"):
            assert " ".join(pair[name].split()) in text
        for name in ("question_author", "chosen_author", "rejected_author"):
            assert " ".join((pair[name] or "an unknown author").split()) in text
    parser = MarkdownIt("commonmark").enable("table")
    for name in ("data_card.md", "model/README.md"):
        card = re.sub(r"\A---\n.*?\n---\n", "", made.path(name).read_text(encoding="utf-8"), flags=re.DOTALL)
        rendered = html.fromstring(parser.render(card))
        assert rendered.xpath("//script") == [], name
        assert [link for link in rendered.xpath("//a/@href") if not link.startswith("https://")] == [], name


def test_the_data_card_counts_what_was_trained_on(made: Manifest, run: Any) -> None:
    card = made.path("data_card.md").read_text(encoding="utf-8")
    pairs = pl.read_parquet(run.stages["sample"].path("train.parquet"))
    for (site,), rows in pairs.group_by("site"):
        assert f"| {as_markdown(str(site))} | {rows.height} |" in card
    assert "| pairs with a preference | 90 | ties 70, capped 40 |" in card
    pictures = re.findall(r"\]\((plots/.*?)\)", card)
    assert len(pictures) >= 3
    for picture in pictures:
        assert made.path(picture).exists()


def test_without_held_out_pairs_the_card_says_so(run_until_train: Make, tmp_path: Path) -> None:
    folder = published(run_until_train(tmp_path, held_out=0))
    card = folder.path("model/README.md").read_text(encoding="utf-8")
    assert "Not evaluated: sample.held\\_out is 0" in card
    assert "model-index" not in yaml.safe_load(card.split("---\n")[1])
    assert "Not evaluated" in folder.path("report.html").read_text(encoding="utf-8")


def test_what_was_not_shown_and_the_reason_for_publishing_it_stand_in_card_and_report(made: Manifest, run: Any) -> None:
    found = json.loads(run.stages["evaluate"].path("metrics.json").read_text(encoding="utf-8"))
    said = findings(found)
    assert said  # noise on random weights learned nothing
    reason = "baseline <b> for the paper"
    folder = published(run, CONFIG.model_copy(update={"waiver": reason}), waive={"tokenized.longest": "known <i>"})
    for name in ("model/README.md", "report.html"):
        plain, waived = (" ".join(one.path(name).read_text(encoding="utf-8").split()) for one in (made, folder))
        assert said[0] in plain and said[0] in waived, name
        assert "Reason given: baseline &lt;b&gt; for the paper." in waived, name
        assert "check tokenized.longest" in waived and "Reason given: known &lt;i&gt;." in waived, name
        assert "waiver" not in plain, name


def test_pairs_of_a_published_set_without_ids_are_published_too(run_until_train: Make, tmp_path: Path) -> None:
    known = ("pair_id", "prompt", "chosen", "rejected")
    pairs = pl.DataFrame(
        {
            "pair_id": [f"paired/{number:016x}" for number in range(40)],
            "prompt": [f"Question {number // 2}?" for number in range(40)],
            "chosen": [f"Because {number}." * (1 + number % 3) for number in range(40)],
            "rejected": [f"No. {number}" for number in range(40)],
        }
    )
    empty = [pl.lit(None).cast(kind).alias(name) for name, kind in PAIR_SCHEMA.items() if name not in known]
    folder = published(
        run_until_train(tmp_path, pairs=pairs.with_columns(empty).select(PAIR_SCHEMA.names()), held_out=10)
    )
    with open(folder.path("attribution.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["url"] for row in rows} == {""}
    assert sum(row["kind"] == "answer" for row in rows) == 2 * folder.counts["pairs"]
    assert sum(row["kind"] == "question" for row in rows) == folder.counts["questions"]
    assert "licence unknown" in folder.path("report.html").read_text(encoding="utf-8")
