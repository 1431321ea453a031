"""A judge behind an endpoint that is slow, rude or talks nonsense, on loopback; verdicts by hand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.errors import Surroundings, Transient
from tasks.evaluation.answers import ANSWERS_SCHEMA
from tasks.evaluation.judge_client import JudgeClient
from tasks.evaluation.verdicts import ORDERS, VERDICTS_SCHEMA, read_verdict, verdict_measures
from tasks.judge import JudgeConfig, judge
from tasks.manifest import Manifest
from tasks.pairs import PAIR_SCHEMA
from tasks.store import External, Store, Workspace

Answer = Callable[[dict[str, Any]], tuple[int, str] | str]


@dataclass
class Stub:
    """An endpoint whose answers the test gives: a reply, or a status and a body."""

    url: str = ""
    answer: Answer = lambda request: "[[TIE]]"
    seen: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    drip: float = 0.0
    """Seconds between two bytes of an answer; 0 sends all at once."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                made.seen.append(request)
                made.tokens.append(self.headers.get("authorization"))
                given = made.answer(request)
            if isinstance(given, str):
                given = (200, json.dumps({"choices": [{"message": {"role": "assistant", "content": given}}]}))
            status, body = given
            self.send_response(status)
            if status == 429:
                self.send_header("retry-after", "7")
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            size = 1 if made.drip else len(body.encode())
            for start in range(0, len(body.encode()), max(1, size)):
                try:
                    self.wfile.write(body.encode()[start : start + size])
                except OSError:  # whoever asked has hung up
                    return
                time.sleep(made.drip)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def given(tmp_path: Path, count: int = 6) -> tuple[Store, Manifest, Manifest]:
    """A store with answers to `count` questions: the tuned model's say TUNED and have twice the tokens."""
    store = Store(tmp_path)
    keys = [f"site/{number}/1/2" for number in range(count)]

    def answered(work: Workspace) -> dict[str, int]:
        rows = [
            (key, model, mode, f"{model.upper()} answer", 10 * (1 + (model == "tuned")), True, [1])
            for key in keys
            for model in ("start", "tuned")
            for mode in ("greedy", "sampled")
        ]
        pl.DataFrame(rows, schema=ANSWERS_SCHEMA, orient="row").write_parquet(work.folder / "generations.parquet")
        return {}

    def sampled(work: Workspace) -> dict[str, int]:
        rows = [dict.fromkeys(PAIR_SCHEMA.names()) | {"pair_id": key, "prompt": f"Why {key}?"} for key in keys]
        pl.DataFrame(rows, schema=PAIR_SCHEMA).write_parquet(work.folder / "held_out.parquet")
        return {}

    made = store.stage("generate", 1, {"count": count}, {"x": External("ab" * 32)}, answered)
    return store, made, store.stage("sample", 1, {"count": count}, {"x": External("ab" * 32)}, sampled)


def judged(where: tuple[Store, Manifest, Manifest], stub: Stub, **settings: Any) -> Manifest:
    config = JudgeConfig(url=stub.url, model="wise", **{"tries": 2, **settings})
    return judge(*where, config, 42, 50)


def found(manifest: Manifest) -> dict[str, Any]:
    measures: dict[str, Any] = json.loads(manifest.path("judge.json").read_text())
    return measures


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for, none of which is kept."""
    waits: list[float] = []
    monkeypatch.setattr(JudgeClient.__init__, "__kwdefaults__", {"sleep": waits.append})
    return waits


def who_is_first(request: dict[str, Any]) -> str:
    text = request["messages"][1]["content"]
    return "start" if text.index("START") < text.index("TUNED") else "tuned"


def test_every_question_is_asked_in_both_orders(stub: Stub, tmp_path: Path) -> None:
    stub.answer = lambda request: "B is clearer. [[B]]" if who_is_first(request) == "start" else "A it is: [[A]]"
    made = judged(given(tmp_path), stub)
    measures = found(made)
    assert made.counts == {"asked": 12, "read": 12, "unread": 0}
    assert [who_is_first(request) for request in stub.seen].count("start") == 6
    assert stub.seen[0]["model"] == "wise" and stub.seen[0]["temperature"] == 0
    assert (measures["wins"], measures["losses"], measures["win_rate"]) == (6, 0, 1.0)
    assert measures["win_rate_low"] < 1.0  # six questions prove little
    assert measures["first_named"] == 0.5
    assert measures["length_controlled_win_rate"] is None
    assert measures["length_reason"] == "all pairs are right: there is nothing to regress on"
    assert pl.read_parquet(made.path("verdicts.parquet")).schema == VERDICTS_SCHEMA


def test_a_judge_who_always_names_the_first_prefers_nobody(stub: Stub, tmp_path: Path) -> None:
    stub.answer = lambda request: "[[A]]"
    measures = found(judged(given(tmp_path), stub))
    assert (measures["win_rate"], measures["inconsistent"], measures["wins"]) == (0.5, 6, 0)
    assert measures["first_named"] == 1.0
    assert measures["warnings"] == [
        "In more than a third of the questions the judge prefers the answer by its place."
    ]  # fmt: skip


def test_nonsense_is_counted_and_not_guessed_at(stub: Stub, tmp_path: Path) -> None:
    stub.answer = lambda request: "As a model I cannot say." if "Why site/0" in str(request) else "[[TIE]]"
    measures = found(judged(given(tmp_path), stub))
    assert (measures["unread"], measures["judged"], measures["ties"]) == (1, 5, 5)
    assert "More than a tenth" in measures["warnings"][0]
    stub.answer = lambda request: "[[A]] or [[B]]"
    nothing = found(judged(given(tmp_path / "other"), stub))
    assert nothing["reason"] == "none of the judge's replies on 6 questions can be read"
    assert nothing["win_rate"] is None


def test_a_hurried_endpoint_is_given_the_time_it_asks_for(stub: Stub, tmp_path: Path, no_waiting: list[float]) -> None:
    turns = iter([(429, "slow down"), (503, "busy"), (200, "<html>"), (200, '{"choices": []}')])
    stub.answer = lambda request: next(turns, "[[TIE]]")
    made = judged(given(tmp_path, 1), stub, tries=5, parallel=1)
    assert made.counts["read"] == 2
    assert no_waiting == [7.0, 2.0, 4.0, 8.0]  # Retry-After, then the doubling


def test_what_was_judged_before_an_endpoint_died_is_not_asked_again(stub: Stub, tmp_path: Path) -> None:
    where = given(tmp_path)
    stub.answer = lambda request: "[[TIE]]" if len(stub.seen) <= 5 else (500, "boom")
    with pytest.raises(Transient, match=r"judge: 127.0.0.1 failed 2 times, at last it answered 500 \(boom\)"):
        judged(where, stub, parallel=1)
    replies = next((tmp_path / "partial").glob("judge-*")) / "replies.jsonl"
    assert len(replies.read_text().splitlines()) == 5
    with open(replies, "a") as file:
        file.write('{"pair_id": "site/5/1/2", "order": "tuned_fi')  # a kill tore the last line
    stub.answer, stub.seen = lambda request: "[[TIE]]", []
    made = judged(where, stub)
    assert len(stub.seen) == 7
    assert made.counts == {"asked": 12, "read": 12, "unread": 0}


def test_an_endpoint_that_refuses_is_named_at_once(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = given(tmp_path)
    stub.answer = lambda request: (401, "who are you?")
    with pytest.raises(Surroundings, match=r"refuses with 401 \(who are you\?\); it wants a token: name the variable"):
        judged(where, stub, parallel=1)
    assert len(stub.seen) == 1
    with pytest.raises(Surroundings, match="key_env names JUDGE_TOKEN, which is not set"):
        judged(where, stub, key_env="JUDGE_TOKEN")
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret-token")
    with pytest.raises(Surroundings, match="look at the token in JUDGE_TOKEN") as refused:
        judged(where, stub, key_env="JUDGE_TOKEN")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[" * 100_000, r"at last it answered what is no chat completion: \[\[\["),
        ('{"choices": [{"message": {"content": null}}]}', "at last it answered what is no chat completion"),
        ("x" * (2**24 + 1), "at last it ReadError: the reply is larger than 16777216 bytes"),
    ],
)
def test_garbage_is_a_failed_try_whatever_it_is(stub: Stub, tmp_path: Path, body: str, said: str) -> None:
    stub.answer = lambda request: (200, body)
    with pytest.raises(Transient, match=said):
        judged(given(tmp_path, 1), stub, parallel=1)


def test_an_endpoint_that_sends_a_byte_now_and_then_is_not_waited_for_for_ever(stub: Stub, tmp_path: Path) -> None:
    stub.drip = 0.1  # some 70 bytes: each in time, all of them seven seconds
    began = time.monotonic()
    with pytest.raises(Transient, match=r"at last it ReadTimeout: the reply was not whole after 0\.5 s"):
        judged(given(tmp_path, 1), stub, parallel=1, timeout=0.5)
    assert time.monotonic() - began < 5


def test_half_a_surrogate_pair_in_a_reply_does_not_keep_its_verdict_from_the_disk(stub: Stub, tmp_path: Path) -> None:
    stub.answer = lambda request: (200, '{"choices": [{"message": {"content": "\\ud83d fine [[TIE]]"}}]}')
    made = judged(given(tmp_path, 1), stub)
    assert pl.read_parquet(made.path("verdicts.parquet"))["reply"].to_list() == ["? fine [[TIE]]"] * 2


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999/v1", "http:///v1"])
def test_an_address_that_can_be_none_is_refused_before_anything_runs(url: str) -> None:
    with pytest.raises(ValidationError, match="is no address"):
        JudgeConfig(url=url, model="wise")


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path, stub: Stub) -> None:
    stub.url = "http://127.0.0.1:1/v1"
    with pytest.raises(Transient, match=r"judge: 127\.0\.0\.1 failed 2 times, at last it ConnectError"):
        judged(given(tmp_path, 1), stub)


def test_the_token_is_sent_and_stands_nowhere(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret-token")
    made = judged(given(tmp_path), stub, key_env="JUDGE_TOKEN")
    assert set(stub.tokens) == {"Bearer s3cret-token"}
    for path in made.folder.rglob("*"):
        assert b"s3cret" not in path.read_bytes()
    # Neither where it is served nor how often it is asked names the result.
    stub.seen = []
    assert judged(given(tmp_path), stub, tries=4, parallel=2).reused and stub.seen == []
    assert set(made.config) == {"model", "mode", "max_tokens", "seed", "bootstrap"}


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("[[A]]", "start"), ("[[B]]", "tuned"), ("So [[TIE]].", "tie"), ("[[B]] ... so [[B]]", "tuned"),
        ("A", None), ("[A]", None), ("[[a]]", None), ("[[A]] [[TIE]]", None), ("", None), ("[[C]]", None),
    ],
)  # fmt: skip
def test_a_verdict_is_exactly_one_mark(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply, "start_first") == verdict
    swapped = {"start": "tuned", "tuned": "start"}.get(verdict or "", verdict)
    assert read_verdict(reply, "tuned_first") == swapped


def verdicts(pairs: list[tuple[str | None, str | None]]) -> pl.DataFrame:
    rows = [
        (f"q{place}", order, who, "")
        for place, both in enumerate(pairs)
        for order, who in zip(ORDERS, both, strict=True)
    ]
    return pl.DataFrame(rows, schema=VERDICTS_SCHEMA, orient="row")


def test_the_rates_are_those_worked_out_by_hand() -> None:
    both = [("tuned", "tuned"), ("tuned", "tie"), ("tie", "tie"), ("tuned", "start"), ("start", "tie"), (None, "tuned")]
    made = verdict_measures(verdicts(both), {f"q{place}": place - 2 for place in range(6)}, times=100, seed=1)
    # 1, 0.75, 0.5, 0.5, 0.25; the sixth has one order that cannot be read.
    assert made["win_rate"] == pytest.approx(3.0 / 5)
    assert {name: made[name] for name in ("wins", "losses", "ties", "inconsistent", "unread", "judged")} == {
        "wins": 2, "losses": 1, "ties": 1, "inconsistent": 1, "unread": 1, "judged": 5,
    }  # fmt: skip


def test_a_judge_who_likes_length_alone_is_unmasked() -> None:
    """The longer answer wins; of four in five questions that is the tuned model's."""
    gaps = {f"q{place}": place - 79 for place in range(400)}
    both: list[tuple[str | None, str | None]] = [
        (("tuned",) * 2 if gap > 0 else ("start",) * 2) for gap in gaps.values()
    ]
    made = verdict_measures(verdicts(both), gaps, times=100, seed=1)
    assert made["win_rate"] == made["tuned_longer"] == 0.8
    assert made["length_controlled_win_rate"] == pytest.approx(0.5, abs=0.15)
    assert made["warnings"] == ["With length held equal the win rate moves by more than 10 points."]
