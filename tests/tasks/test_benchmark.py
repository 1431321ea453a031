"""lm-eval on a task of our own and a random model, against what the log-probs say by hand; comparisons by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm, sem

from tasks.benchmark import BenchmarkConfig, _environment, benchmark
from tasks.errors import RecipeError, StageFailed
from tasks.evaluation.benchmark_table import ITEMS_SCHEMA, compared_benchmarks
from tasks.evaluation.statistics import agreed
from tasks.evaluation.suite import PUBLISHED, SUITE, benchmarks, suite_table
from tasks.manifest import Manifest
from tasks.reports.further_tables import further_tables
from tasks.store import External, Store, Workspace

Make = Callable[..., Any]

QUESTIONS = [
    {"question": f"What comes after {number}?", "choices": [f"It is {number + 1}.", f"Why, {number - 1}!", "None"],
     "answer": number % 3}
    for number in range(12)
]  # fmt: skip
TASK = {
    "task": "after", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "after.jsonl"}},
    "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}", "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one task in JSON and its data beside it."""
    pytest.importorskip("lm_eval", reason="the optional group `eval` is not installed")
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "after.json").write_text(json.dumps(TASK))
    (folder / "after.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return folder


@pytest.fixture(scope="module")
def both(finished: Any, tasks_folder: Path) -> list[Manifest]:
    """The benchmark of the start and of the tuned model."""
    config = BenchmarkConfig(tasks=["after"], include_path=tasks_folder)
    return [benchmark(finished.store, finished.stages[one], config, finished.train) for one in ("model", "train")]


def picked(model: Path, question: dict[str, Any]) -> int:
    """The choice that is likeliest behind the question in the Tulu form."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt = tokenizer(f"<|user|>\n{question['question']}\n<|assistant|>\n", add_special_tokens=False)["input_ids"]
    sums = []
    for choice in question["choices"]:
        ids = prompt + tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logps = policy(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        sums.append(float(logps[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][len(prompt) - 1 :].sum()))
    return int(np.argmax(sums))


def test_where_code_of_a_model_runs_its_process_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OUR_JUDGE"):
        monkeypatch.setenv(name, "hidden")
    kept = _environment(BenchmarkConfig(tasks=["gsm8k"]), ["OUR_JUDGE"])
    assert kept["HF_TOKEN"] == "hidden"  # gated data sets are fetched with it
    bare = _environment(BenchmarkConfig(tasks=["gsm8k"], run_code=True), ["OUR_JUDGE"])
    assert "HF_TOKEN" not in bare and "OUR_JUDGE" not in bare and bare["PATH"] == kept["PATH"]


def test_a_local_task_gives_what_the_log_probs_say(both: list[Manifest], finished: Any) -> None:
    for manifest, stage in zip(both, ("model", "train"), strict=True):
        items = pl.read_parquet(manifest.path("items.parquet"))
        assert items.schema == ITEMS_SCHEMA
        folder = finished.stages[stage].path("model")
        wanted = [float(picked(folder, one) == one["answer"]) for one in QUESTIONS]
        assert items["value"].to_list() == wanted
        (said,) = json.loads(manifest.path("benchmarks.json").read_text())
        assert said["value"] == pytest.approx(np.mean(wanted))
        assert said["stderr"] == pytest.approx(sem(wanted))
        assert (said["metric"], said["shots"], said["asked"]) == ("acc,none", 0, 12)
        assert manifest.counts == {"benchmarks": 1, "asked": 12, "items": 12}


def test_the_start_model_is_asked_once_for_all_runs(both: list[Manifest], finished: Any, tasks_folder: Path) -> None:
    config = BenchmarkConfig(tasks=["after"], include_path=tasks_folder, batch_size=3)
    assert benchmark(finished.store, finished.stages["model"], config, finished.train).reused
    assert both[0].fingerprint != both[1].fingerprint
    # Another task under the same name is another benchmark.
    other = tasks_folder.parent / "other"
    other.mkdir()
    (other / "after.json").write_text(json.dumps(TASK))
    (other / "after.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    moved = BenchmarkConfig(tasks=["after"], include_path=other)
    planned = Store(finished.store.work_dir, plan=True)
    assert benchmark(planned, finished.stages["model"], moved, finished.train).planned


def test_what_is_asked_names_a_benchmark_and_not_how_it_was_asked_for(finished: Any) -> None:
    store = Store(finished.store.work_dir, plan=True)

    def planned(**settings: Any) -> str:
        config = BenchmarkConfig(run_code=True, **settings)
        return benchmark(store, finished.stages["model"], config, finished.train).fingerprint

    named = [one.name for one in SUITE if one.task is not None]
    assert planned(tasks=["paper"]) == planned(tasks=named) == planned(tasks=["paper", "gsm8k"])
    assert planned(tasks=["gsm8k"]) == planned(tasks=["gsm8k", "gsm8k"]) != planned(tasks=["gsm8k", "ifeval"])
    assert planned(tasks=["gsm8k"]) != planned(tasks=["gsm8k"], limit=5)
    assert planned(tasks=["gsm8k"]) != planned(tasks=["gsm8k"], fewshot=3)


@pytest.mark.slow
def test_a_task_that_nobody_has_and_a_model_without_template_are_named(
    run_until_train: Make, tmp_path: Path, tasks_folder: Path
) -> None:
    run = run_until_train(tmp_path)
    with pytest.raises(RecipeError, match=r"neither lm-eval nor evaluate\.benchmarks\.include_path has 'afer'"):
        config = BenchmarkConfig(tasks=["afer"], include_path=tasks_folder)
        benchmark(run.store, run.stages["model"], config, run.train)

    def bare(work: Workspace) -> dict[str, int]:
        import shutil

        shutil.copytree(run.stages["model"].path("model"), work.folder / "model")
        (work.folder / "model" / "chat_template.jinja").unlink()
        return {}

    untold = run.store.stage("model", 1, {"bare": True}, {"model": run.stages["model"]}, bare)
    with pytest.raises(RecipeError, match="model has no chat template"):
        benchmark(run.store, untold, BenchmarkConfig(tasks=["after"], include_path=tasks_folder), run.train)


def test_what_cannot_be_asked_is_refused_before_anything_starts(finished: Any, tmp_path: Path) -> None:
    def refused(**settings: Any) -> str:
        with pytest.raises(RecipeError) as error:
            benchmark(finished.store, finished.stages["model"], BenchmarkConfig(**settings), finished.train)
        return str(error.value)

    assert "xstest cannot be run here: lm-eval has no such task" in refused(tasks=["xstest"])
    assert "humaneval_plus, mbpp_plus would execute what the models write" in refused(tasks=["paper"])
    assert f"{tmp_path / 'no'} is no folder" in refused(tasks=["after"], include_path=tmp_path / "no")


def test_the_suite_is_one_that_lm_eval_has() -> None:
    lm_eval_tasks = pytest.importorskip("lm_eval.tasks", reason="the optional group `eval` is not installed")
    known = lm_eval_tasks.TaskManager().all_tasks
    assert [one.task for one in SUITE if one.task is not None and one.task not in known] == []
    assert {one.name for one in benchmarks(["paper", "gsm8k", "arc_easy"])} == {
        one.name for one in SUITE if one.task is not None
    } | {"arc_easy"}
    for row in PUBLISHED.values():
        assert sum(row[:-1]) / 6 == pytest.approx(row[-1], abs=0.06)


def test_the_page_on_evaluation_has_the_suite_as_the_code_has_it() -> None:
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    assert suite_table() in page.read_text(encoding="utf-8")


def by_hand(store: Store, side: str, values: list[float], **changes: Any) -> Manifest:
    """A benchmark stage whose items got `values`."""

    def build(work: Workspace) -> dict[str, int]:
        said = {
            "name": "gsm8k", "task": "gsm8k_cot", "metric": "exact_match,x", "value": float(np.mean(values)),
            "stderr": None, "higher_is_better": True, "shots": 8, "asked": len(values),
            "whole": True,
        } | changes  # fmt: skip
        (work.folder / "benchmarks.json").write_text(json.dumps([said]))
        rows = [("gsm8k", "gsm8k_cot", doc, "same", value) for doc, value in enumerate(values)]
        pl.DataFrame(rows, schema=ITEMS_SCHEMA, orient="row").write_parquet(work.folder / "items.parquet")
        return {}

    key = {"side": side, "values": values} | {name: str(value) for name, value in changes.items()}
    return store.stage("benchmark", 1, key, {"model": External("ab" * 32)}, build)


@pytest.fixture
def tulu(tmp_path: Path) -> tuple[Store, Manifest]:
    """A store, and a start model that is the paper's."""
    store = Store(tmp_path)
    made = store.stage("model", 1, {"repo": "allenai/tulu-2-13b"}, {"x": External("cd" * 32)}, lambda work: {})
    return store, made


def test_the_same_items_make_the_difference_surer(tulu: tuple[Store, Manifest]) -> None:
    store, model = tulu
    before = [1.0, 0.0] * 50
    after = [0.0 if place in (0, 2, 4, 6, 8, 10) else value for place, value in enumerate(before)]
    found = compared_benchmarks([(by_hand(store, "start", before), by_hand(store, "tuned", after))], model)
    (one,) = found["benchmarks"]
    assert (one["before"], one["after"], one["difference"]) == (0.5, 0.44, pytest.approx(-0.06))
    error = sem(np.array(after) - np.array(before))
    assert one["paired"] and one["difference_error"] == pytest.approx(error)
    assert one["high"] == pytest.approx(-0.06 + norm.ppf(0.975) * error)
    assert error < 0.5 * np.hypot(one["before_error"], one["after_error"])
    assert found["benchmark_notes"]["warnings"] == [
        "The tuned model is worse than the start model on gsm8k, beyond chance."
    ]


def test_where_the_metric_is_no_mean_of_items_the_errors_add_up(tulu: tuple[Store, Manifest]) -> None:
    store, model = tulu
    sides = (
        by_hand(store, "start", [1.0, 0.0], value=0.3, stderr=0.03),
        by_hand(store, "tuned", [1.0, 0.0], value=0.4, stderr=0.04),
    )
    (one,) = compared_benchmarks([sides], model)["benchmarks"]
    assert not one["paired"]
    assert one["difference_error"] == pytest.approx(0.05)
    unsure = by_hand(store, "unsure", [1.0, 0.0], value=0.4)
    (one,) = compared_benchmarks([(sides[0], unsure)], model)["benchmarks"]
    assert (one["difference_error"], one["low"], one["high"]) == (None, None, None)


def test_other_items_are_no_comparison(tulu: tuple[Store, Manifest]) -> None:
    store, model = tulu
    with pytest.raises(StageFailed, match="benchmark gsm8k: the two models were not asked the same items"):
        compared_benchmarks([(by_hand(store, "start", [1.0]), by_hand(store, "tuned", [1.0, 0.0]))], model)


def test_as_many_items_but_others_are_no_comparison(tulu: tuple[Store, Manifest]) -> None:
    store, model = tulu
    tuned = by_hand(store, "tuned", [1.0, 0.0])
    pl.read_parquet(tuned.path("items.parquet")).with_columns(pl.col("doc") + 1).write_parquet(
        tuned.path("items.parquet")
    )
    with pytest.raises(StageFailed, match="were not asked the same items"):
        compared_benchmarks([(by_hand(store, "start", [1.0, 0.0]), tuned)], model)


def test_two_items_that_both_got_worse_are_chance(tulu: tuple[Store, Manifest]) -> None:
    store, model = tulu

    def found(items: int) -> dict[str, Any]:
        sides = by_hand(store, "start", [1.0] * items), by_hand(store, "tuned", [0.0] * items)
        return compared_benchmarks([sides], model)

    (two,), (forty,) = found(2)["benchmarks"], found(40)["benchmarks"]
    assert (two["difference"], two["difference_error"]) == (-1.0, 0.0)
    assert (two["low"], two["high"]) == pytest.approx(agreed(-1.0, 2)) and two["high"] > 0 > forty["high"]
    assert found(2)["benchmark_notes"]["warnings"] == []
    assert len(found(40)["benchmark_notes"]["warnings"]) == 1


def test_the_papers_rows_stand_beside_its_own_model_only(tulu: tuple[Store, Manifest], finished: Any) -> None:
    store, model = tulu
    sides = by_hand(store, "start", [1.0, 0.0]), by_hand(store, "tuned", [1.0, 1.0])
    found = compared_benchmarks([sides], model)
    rows = found["benchmark_notes"]["published"]["rows"]
    assert rows["StackExchange 60k DPO, the published model"]["average"] == 56.7
    # Reasoning is GSM8k and BBH; one of them alone is not the paper's number.
    assert rows["this run, tuned"]["reasoning"] is None
    (table,) = further_tables(found)
    assert table.parts[0][1][0][1:] == ("50.0 ± 50.0 %", "100.0 ± 0.0 %", "50.0 %", "-48.0 to 148.0 %")
    assert table.parts[1][1][0][-1] == "56.8"
    limited = by_hand(store, "start", [1.0, 0.0], whole=False), by_hand(store, "tuned", [1.0, 0.0], whole=False)
    assert [one["as_published"] for one in compared_benchmarks([limited], model)["benchmarks"]] == [False]
    assert "published" not in compared_benchmarks([sides], finished.stages["model"])["benchmark_notes"]
