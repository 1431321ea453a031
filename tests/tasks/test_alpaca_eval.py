"""AlpacaEval by its tool: a stand-in of the command against a real endpoint on loopback, answers of random models."""

import json
import math
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.alpaca_eval import AlpacaEvalConfig, alpaca_eval
from tasks.errors import InputError, RecipeError, StageFailed, Surroundings, Transient
from tasks.evaluation.alpaca_tool import arguments, read_annotations, read_leaderboard, tool
from tasks.evaluation.benchmark_table import compared_benchmarks
from tasks.evaluation.instructions import FILE, hub_reference, read_instructions
from tasks.outputs import GENERATOR, outputs
from tasks.reports.further_tables import further_tables

INSTRUCTIONS = [f"Name {number} rivers." for number in range(1, 5)]
STAND_IN = Path(__file__).parent / "stand_in" / "alpaca_eval_tool.py"


@dataclass
class Endpoint:
    """What the annotator was asked, and how it answers."""

    url: str = ""
    status: int = 200
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    odds: dict[str, float] = field(default_factory=dict)
    """Chance that the model's answer is named, by instruction; None of both tokens where it has no entry."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    asked = Endpoint(odds=dict(zip(INSTRUCTIONS, (0.9, 0.6, 0.5, 0.2), strict=True)))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pair = json.loads(body["messages"][0]["content"])
            asked.requests.append(pair)
            asked.keys.add(self.headers["Authorization"])
            odds = asked.odds.get(pair["instruction"])
            tops = [{"token": "?", "logprob": 0.0}]
            if odds is not None:
                tops = [{"token": "M", "logprob": math.log(odds)}, {"token": "m", "logprob": math.log(1 - odds)}]
            choice = {"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": tops}]}}
            reply = json.dumps({"choices": [choice]}).encode()
            self.send_response(asked.status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlpacaEvalConfig:
    """The stand-in as the command, a reference with one answer more than there are instructions."""
    command = tmp_path / "alpaca_eval"
    command.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    command.chmod(0o755)
    reference = [{"instruction": one, "output": "The Rhine.", "generator": "wise"} for one in ["More?", *INSTRUCTIONS]]
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    (tmp_path / "asked.json").write_text(json.dumps([{"instruction": one} for one in INSTRUCTIONS]))
    monkeypatch.setenv("ANNOTATOR_KEY", "sk-hidden")
    return AlpacaEvalConfig(
        instructions=tmp_path / "asked.json", reference_outputs=tmp_path / "reference.json", url=endpoint.url,
        key_env="ANNOTATOR_KEY", command=str(command), max_new_tokens=6,
    )  # fmt: skip


def test_both_models_are_asked_and_stand_in_the_table_of_benchmarks(
    finished: Any, config: AlpacaEvalConfig, endpoint: Endpoint
) -> None:
    answered = {
        one: outputs(finished.store, finished.stages[one], config, finished.train) for one in ("model", "train")
    }
    written = json.loads(answered["train"].path("outputs.json").read_text())
    assert [one["instruction"] for one in written] == INSTRUCTIONS
    assert {one["generator"] for one in written} == {GENERATOR}
    assert answered["train"].counts["stopped"] + answered["train"].counts["cut"] == 4
    tuned = alpaca_eval(finished.store, answered["train"], config)
    assert [one["output_2"] for one in endpoint.requests] == [one["output"] for one in written]
    (said,) = json.loads(tuned.path("benchmarks.json").read_text())
    assert said["value"] == pytest.approx(0.55)  # (0.9 + 0.6 + 0.5 + 0.2) / 4
    assert said["stderr"] == pytest.approx(math.sqrt(0.25 / 3 / 4))  # squares 0.1225, 0.0025, 0.0025, 0.1225
    assert pl.read_parquet(tuned.path("items.parquet"))["value"].to_list() == pytest.approx([0.9, 0.6, 0.5, 0.2])
    assert endpoint.keys == {"Bearer sk-hidden"}
    held = [path for path in finished.store.work_dir.rglob("*") if path.is_file() and b"sk-hidden" in path.read_bytes()]
    assert held == []

    endpoint.odds = dict.fromkeys(INSTRUCTIONS, 0.3)
    start = alpaca_eval(finished.store, answered["model"], config)
    found = compared_benchmarks([(start, tuned)], finished.stages["model"])
    (one,) = found["benchmarks"]
    assert (one["before"], one["after"], one["paired"]) == (pytest.approx(0.3), pytest.approx(0.55), True)
    assert one["difference_error"] == pytest.approx(said["stderr"]) and not one["as_published"]
    assert "weighted_alpaca_eval_gpt4_turbo prefers to those of wise; instructions of our own" in one["note"]
    (table,) = further_tables(found)
    assert table.parts[0][1][0][:3] == (
        "alpaca_eval * (win rate, 0 shots, 4 items)", "30.0 ± 0.0 %", f"55.0 ± {100 * said['stderr']:.1f} %"
    )  # fmt: skip


def test_another_annotator_judges_the_same_answers_and_the_same_one_is_not_asked_again(
    finished: Any, config: AlpacaEvalConfig, endpoint: Endpoint, tmp_path: Path
) -> None:
    answered = outputs(finished.store, finished.stages["train"], config, finished.train)
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "configs.yaml").write_text("ours: {prompt_template: ours.txt}\n")
    other = config.model_copy(update={"annotator": str(folder)})
    assert outputs(finished.store, finished.stages["train"], other, finished.train).reused
    first = alpaca_eval(finished.store, answered, other)
    assert not first.reused and len(endpoint.requests) == 4
    moved = other.model_copy(update={"url": "http://127.0.0.1:9/v1", "key_env": None, "command": "gone"})
    assert alpaca_eval(finished.store, answered, moved).reused
    (folder / "configs.yaml").write_text("ours: {prompt_template: theirs.txt}\n")
    assert alpaca_eval(replace(finished.store, plan=True), answered, other).planned


def test_a_reply_that_cannot_be_read_is_counted_and_spoils_no_comparison(
    finished: Any, config: AlpacaEvalConfig, endpoint: Endpoint
) -> None:
    del endpoint.odds[INSTRUCTIONS[1]]
    fewer = config.model_copy(update={"annotator": "another"})
    answered = outputs(finished.store, finished.stages["train"], fewer, finished.train)
    judged = alpaca_eval(finished.store, answered, fewer)
    assert judged.counts == {"benchmarks": 1, "asked": 4, "annotated": 3}
    (one,) = compared_benchmarks([(judged, judged)], finished.stages["model"])["benchmarks"]
    assert one["before"] == pytest.approx(1.6 / 3) and not one["paired"]
    assert "1 replies of the annotator could not be read" in one["note"]


def test_an_endpoint_that_refuses_or_is_away_is_told_apart(
    finished: Any, config: AlpacaEvalConfig, endpoint: Endpoint
) -> None:
    config = config.model_copy(update={"annotator": "a third"})
    answered = outputs(finished.store, finished.stages["train"], config, finished.train)
    endpoint.status = 401
    with pytest.raises(Surroundings, match=r"AuthenticationError: Error code: 401.*look at .*key_env"):
        alpaca_eval(finished.store, answered, config)
    away = config.model_copy(update={"url": "http://127.0.0.1:9/v1"})
    with pytest.raises(Transient, match=r"APIConnectionError: Connection error\.; see .*alpaca_eval\.log; what it has"):
        alpaca_eval(finished.store, answered, away)
    broken = config.model_copy(update={"command": "/bin/false"})
    with pytest.raises(StageFailed, match=r"ended with status 1: .*; see .*alpaca_eval\.log"):
        alpaca_eval(finished.store, answered, broken)
    with pytest.raises(Surroundings, match="key_env names NO_SUCH_KEY, which is not set"):
        alpaca_eval(finished.store, answered, config.model_copy(update={"key_env": "NO_SUCH_KEY"}))
    with pytest.raises(RecipeError, match="there is no 'no_such_tool' here: pip install alpaca_eval"):
        tool("no_such_tool")


def test_instructions_are_refused_by_their_place(finished: Any, config: AlpacaEvalConfig, tmp_path: Path) -> None:
    def refused(text: str, **changes: Any) -> str:
        (tmp_path / "other.json").write_text(text)
        wrong = config.model_copy(update={"instructions": tmp_path / "other.json", **changes})
        with pytest.raises((InputError, RecipeError)) as error:
            outputs(finished.store, finished.stages["train"], wrong, finished.train)
        return str(error.value)

    assert "cannot be read as JSON" in refused("[")
    assert "is no JSON list" in refused("{}")
    assert "entry 2 of" in refused('[{"instruction": "More?"}, {"prompt": "x"}]')
    assert "entries 1 and 2 of" in refused('[{"instruction": "More?"}, {"instruction": "More?"}]')
    assert "instruction 2 has no answer to compare to" in refused('[{"instruction": "More?"}, {"instruction": "x"}]')
    long = refused('[{"instruction": "More?"}]', max_new_tokens=10**6)
    assert "max_new_tokens is 1000000: instruction 1 has" in long
    assert "40 hex digits of a commit" in refused('[{"instruction": "More?"}]', reference_outputs=None)


def test_the_hubs_set_is_fetched_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own client from a server on loopback, with the headers that it asks for."""
    content = json.dumps([{"instruction": "More?", "output": "No.", "generator": "gpt4_1106_preview"}]).encode()
    commit, paths = "a" * 40, []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(content)

        def _answer(self, body: bytes) -> None:
            paths.append(self.path)
            known = self.path == f"/datasets/tatsu-lab/alpaca_eval/resolve/{commit}/{FILE}"
            self.send_response(200 if known else 404)
            for name, value in (("X-Repo-Commit", commit), ("ETag", '"e1"'), ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        (only,) = read_instructions(hub_reference(commit), "output", "generator")
    finally:
        server.shutdown()
        server.server_close()
    assert only["generator"] == "gpt4_1106_preview" and paths
    assert AlpacaEvalConfig(revision=commit).controlled
    assert "--fn_metric" not in arguments(tmp_path, tmp_path, tmp_path, annotator="x", controlled=True)


def test_the_files_of_the_real_tool_are_read(tmp_path: Path) -> None:
    """As alpaca_eval 0.6.6 wrote them, numbers and all."""
    leaderboard = tmp_path / "leaderboard.csv"
    leaderboard.write_text(
        ",win_rate,standard_error,mode,avg_length,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,"
        "length_controlled_winrate,lc_standard_error\n"
        "tuned,53.17574476193643,7.249138331748578,community,43,11,9,0,20,55.00000000000001,50.0,0.0\n"
    )
    assert read_leaderboard(leaderboard) == pytest.approx((0.5317574476, 0.0724913833, 0.5, 0.0))
    leaderboard.write_text(",win_rate,standard_error,n_total\ntuned,50.0,14.202362333757518,6\n")
    assert read_leaderboard(leaderboard)[2:] == (None, None)
    leaderboard.write_text(",win_rate,standard_error,n_total\ntuned,,,0\n")
    with pytest.raises(StageFailed, match=r"leaderboard\.csv is no leaderboard of one model"):
        read_leaderboard(leaderboard)
    annotations = tmp_path / "annotations.json"
    one = {"instruction": "Say number 0.", "generator_2": "tuned", "preference": 1.8175744762,
           "preference_version": "alpaca_eval==0.6.6"}  # fmt: skip
    draw = {"instruction": "b", "preference": 0.0}
    annotations.write_text(json.dumps([one, draw, {"instruction": "c", "preference": None}]))
    judged, version = read_annotations(annotations)
    assert judged == pytest.approx({"Say number 0.": 0.8175744762, "b": 0.5}) and version == "alpaca_eval==0.6.6"
