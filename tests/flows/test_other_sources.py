"""Recipes that read pair sets and are judged by another source."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.plan import plan_recipe
from flows.recipe import STAGES, load_recipe
from tests.flows.conftest import Shell

RECIPE = """\
model: {model}
work_dir: {work}
ingest: {{sources: [{{kind: tulu, path: {folder}/tulu.jsonl}}, {{kind: jsonl, path: {folder}/jsonl.jsonl}}]}}
dedupe: {{exact: false, near: false}}
sample: {{size: null, held_out: 0}}
tokenize: {{max_length: 256}}
train: {{learning_rate: 1.0e-3, batch_size: 4, epochs: 1, precision: fp32, zero_stage: 2, ranks: 1, save_every: 9}}
evaluate: {{bootstrap: 50, held_out: 6, sources: [{{kind: preferences, path: {folder}/preferences.jsonl}}]}}
publish: {{name: tiny}}
"""


def test_published_60k_is_the_tulu_recipe_but_for_where_its_pairs_come_from() -> None:
    published, ours = (load_recipe(name) for name in ("published-60k", "tulu-v2.5-13b-stackexchange-60k"))
    assert published.train == ours.train
    assert published.tokenize == ours.tokenize
    assert (published.model, published.seed) == (ours.model, ours.seed)
    (source,) = published.ingest.sources
    assert (source.kind, source.path) == ("tulu", "allenai/tulu-2.5-preference-data")
    assert source.revision == "6e87e7ba11eeb2a21db459cf13267f62d1feea23"
    assert source.files is not None and "stack_exchange_60k" in source.files
    assert (published.sample.size, published.sample.held_out) == (None, 0)
    assert not published.dedupe.exact and not published.dedupe.near
    assert published.evaluate.sources


def test_published_60k_is_planned_without_a_hub_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    plan = plan_recipe("published-60k", [], [])
    assert list(plan["stages"]) == list(STAGES)
    assert not any(entry["reused"] for entry in plan["stages"].values())
    assert "beer.stackexchange.com.7z" in " ".join(plan["stages"]["ingest"]["missing"])
    assert not (tmp_path / "runs" / "downloads").exists()


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_pairs_from_two_sets_are_trained_on_and_judged_by_a_third_without_what_was_seen(
    shell: Shell, tmp_path: Path, tiny_model: Path
) -> None:
    def talk(number: int, answer: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": f"What is {number} times two?"}, {"role": "assistant", "content": answer}
        ]  # fmt: skip

    write(tmp_path, "tulu", [{"chosen": talk(n, "Good."), "rejected": talk(n, "Bad, alas.")} for n in range(8)])
    plain = [{"prompt": f"Whose is {n}?", "chosen": "Mine.", "rejected": "Nobody's, I fear."} for n in range(8)]
    write(tmp_path, "jsonl", plain)
    answers = [
        {"answer_id": 1, "pm_score": 4, "selected": True, "text": "<p>Good.</p>"},
        {"answer_id": 2, "pm_score": 1, "selected": False, "text": "<p>Bad, alas.</p>"},
    ]
    ranked = [
        {
            "qid": 10 * n, "question": f"<p>What is <b>{n}</b> times two?</p>",
            "answers": [answer | {"answer_id": 10 * n + answer["answer_id"]} for answer in answers],
            "metadata": [f"https://math.stackexchange.com/questions/{10 * n}"],
        }
        for n in range(4, 20)
    ]  # fmt: skip
    write(tmp_path, "preferences", ranked)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=tiny_model, work=tmp_path / "work", folder=tmp_path))

    first = shell.run("run", str(recipe), "--json")
    assert first.status == 0, first.err
    summary = json.loads(first.out)
    assert summary["stages"]["sample"]["counts"]["train"] == 16
    assert summary["stages"]["evaluate"]["counts"]["pairs"] == 6 == summary["metrics"]["pairs"]
    assert len(summary["stages"]["ingest"]["sources"]) == 3
    judged = pl.read_parquet(Path(summary["stages"]["evaluate"]["folder"]) / "rows.parquet")["pair_id"]
    seen = {f"math.stackexchange.com/{10 * n}/{10 * n + 1}/{10 * n + 2}" for n in range(4, 8)}
    assert len(judged) == 6 and not seen & set(judged)

    again = json.loads(shell.run("run", str(recipe), "--json").out)
    assert all(entry["reused"] for entry in again["stages"].values())
    # How many judge does not touch what was trained.
    more = json.loads(shell.run("run", str(recipe), "--json", "--set", "evaluate.held_out=9").out)
    assert {name for name, entry in more["stages"].items() if not entry["reused"]} == {"evaluate", "publish"}
    assert more["stages"]["evaluate"]["counts"]["pairs"] == 9

    traced = shell.run("trace", "tulu/" + "0" * 16, "--work-dir", str(tmp_path / "work"))
    assert traced.status == 2
    name = pl.read_parquet(Path(summary["stages"]["sample"]["folder"]) / "train.parquet")["pair_id"].sort()[-1]
    traced = shell.run("trace", name, "--work-dir", str(tmp_path / "work"), "--json")
    assert json.loads(traced.out)["source"]["file"] == "tulu.jsonl"
