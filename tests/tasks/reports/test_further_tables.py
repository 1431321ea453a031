"""What the report and the card say of the other evaluations, every text of a model escaped."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from lxml import html
from markdown_it import MarkdownIt

from tasks.evaluation.answers import ANSWERS_SCHEMA, answer_measures, no_answers
from tasks.evaluation.verdicts import ORDERS, VERDICTS_SCHEMA, no_verdicts, verdict_measures
from tasks.manifest import Manifest
from tasks.publish import PublishConfig, publish
from tasks.reports.further_tables import further_tables
from tasks.results import results
from tasks.store import Workspace

EVIL = "</pre><script>alert(1)</script> | [a](javascript:b) <|user|>\n```"


def with_parts(run: Any, judge: dict[str, Any]) -> dict[str, Manifest]:
    """The stages of a finished run, with answers written by hand and a verdict on them."""
    keys = run.held_out()["pair_id"].to_list()[:5]
    rows = [
        (key, model, mode, f"{model} {EVIL} " * (1 + (model == "tuned")), 9, True, [1, 2, 3, 4, 5, 6, 7, 8, place])
        for place, key in enumerate(keys)
        for model in ("start", "tuned")
        for mode in ("greedy", "sampled")
    ]
    answers = pl.DataFrame(rows, schema=ANSWERS_SCHEMA, orient="row")

    def generated(work: Workspace) -> dict[str, int]:
        answers.write_parquet(work.folder / "generations.parquet")
        (work.folder / "generation.json").write_text(json.dumps(answer_measures(answers, times=20, seed=1)))
        return {"answers": answers.height}

    def judged(work: Workspace) -> dict[str, int]:
        (work.folder / "judge.json").write_text(json.dumps(judge))
        return {"asked": 10}

    made = {"generate": run.store.stage("generate", 1, {"by": "hand"}, {"train": run.stages["train"]}, generated)}
    made["judge"] = run.store.stage("judge", 1, {"reason": judge["reason"]}, made, judged)
    return (
        run.stages
        | made
        | {"evaluate": results(run.store, run.stages["evaluate"], made, run.stages["model"], run.stages["train"])}
    )


def verdict() -> dict[str, Any]:
    rows = [(f"q{place}", order, "tuned", "") for place in range(5) for order in ORDERS]
    frame = pl.DataFrame(rows, schema=VERDICTS_SCHEMA, orient="row")
    return verdict_measures(frame, {f"q{place}": 3 for place in range(5)}, times=20, seed=1) | {"model": "judge|*evil*"}


@pytest.fixture(scope="module")
def published(finished: Any) -> Manifest:
    stages = with_parts(finished, verdict())
    return publish(finished.store, stages, finished.sources, PublishConfig(name="tiny"), finished.recipe)


def test_the_report_shows_answers_side_by_side_and_runs_none_of_them(published: Manifest) -> None:
    page = html.fromstring(published.path("report.html").read_text(encoding="utf-8"))
    assert page.xpath("//script") == []
    section = page.get_element_by_id("generation")
    texts = [node.text_content() for node in section.xpath('.//div[@class="sides"]//pre')]
    assert len(texts) == 10
    assert texts[0].startswith(f"start {EVIL}") and texts[1].startswith(f"tuned {EVIL}")
    assert "4-grams" in section.text_content()
    assert "#generation" in [link.get("href") for link in page.xpath("//nav/a")]
    assert "100.0 %" in page.get_element_by_id("judge").text_content()


def test_rows_that_are_too_wide_for_a_phone_are_stacked_there(published: Manifest) -> None:
    page = html.fromstring(published.path("report.html").read_text(encoding="utf-8"))
    columns = {table: len(table.xpath("./thead/tr/th")) for table in page.xpath("//table")}
    texts = {table: not table.xpath("./thead/tr/th[@class='n']") for table in columns}  # such as checksums
    assert {(3, True), (3, False), (5, False)} <= {(count, texts[table]) for table, count in columns.items()}
    for table, count in columns.items():
        stacked = {"class": "many", "style": f"--others:{count - 1}"} if count > 3 or texts[table] else {}
        assert dict(table.attrib) == stacked


def test_the_card_has_the_tables_too(published: Manifest) -> None:
    card = published.path("model/README.md").read_text(encoding="utf-8")
    body = card.split("---\n", 2)[2]
    page = html.fromstring(MarkdownIt("gfm-like", {"linkify": False}).render(body))
    titles = [node.text for node in page.xpath("//h2")]
    assert titles[titles.index("Results") :][:4] == [
        "Results", "What it writes", "What a judge prefers", "How to use",
    ]  # fmt: skip
    assert "judge|*evil* compared the two models" in page.text_content()
    rows = {row.xpath("string(td[1])"): row.xpath("string(td[2])") for row in page.xpath("//table//tr")}
    assert rows["win rate of the tuned model"] == "100.0 %"
    assert rows["tokens an answer"] == "9.0"


def test_lineage_names_what_was_asked(published: Manifest) -> None:
    lineage = json.loads(published.path("lineage.json").read_text())
    assert {"generate", "judge"} < set(lineage["stages"])
    assert (
        lineage["stages"]["evaluate"]["inputs"]["generate"]["fingerprint"]
        == (lineage["stages"]["generate"]["fingerprint"])
    )


@pytest.mark.parametrize(
    ("section", "made"), [("generation", no_answers), ("judge", no_verdicts)], ids=["generation", "judge"]
)
def test_what_could_not_be_done_says_why(section: str, made: Callable[[str], dict[str, Any]]) -> None:
    (table,) = further_tables({section: made("the moon is full")})
    assert "the moon is full" in table.remark and table.parts == []
    assert further_tables({"accuracy": 0.5}) == []


def test_a_hub_reads_the_win_rate_from_the_card(published: Manifest) -> None:
    from huggingface_hub import ModelCard

    results = ModelCard.load(published.path("model/README.md")).data.eval_results
    values = {one.metric_type: one.metric_value for one in results}
    assert values["win_rate"] == 1.0
    assert "length_controlled_win_rate" not in values  # nobody lost: there is nothing to regress on
    assert "judge|*evil*" in next(one.metric_name for one in results if one.metric_type == "win_rate")
