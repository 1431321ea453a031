"""`prefstack push` against a hub on loopback: one commit, no token but the environment's, failures in one sentence."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import load_recipe
from flows.runs import open_run
from tasks.errors import InputError
from tasks.manifest import Manifest
from tasks.store import External, Store, Workspace
from tests.flows.conftest import Outcome, Shell
from tests.tasks.push_hub import COMMIT, TOKEN, XET_TOKEN, PushHub, push_hub

FILES = {
    "model/README.md": "---\nlicense: apache-2.0\n---\n# Tiny\n", "model/config.json": "{}",
    "model/model.safetensors": "weights", "attribution.csv": "site\n", "lineage.json": "{}",
    "report.html": "<html>", "plots/years.png": "png", "pairs/train.parquet": "texts of others",
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[PushHub]:
    with push_hub() as found:
        yield found


@pytest.fixture
def published(shell: Shell) -> Manifest:
    """A run `done` that has published FILES."""
    work_dir = shell.folder / "runs"

    def build(work: Workspace) -> dict[str, int]:
        for name, text in FILES.items():
            path = work.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return {"files": 3}

    made = Store(work_dir).stage("publish", 1, {}, {"x": External("0" * 64)}, build)
    open_run("done", load_recipe("demo", [f"work_dir={work_dir}"])).finish("publish", [made], 0.0)
    return made


def pushed(shell: Shell, hub_url: str, *arguments: str, token: str | None = TOKEN, xet: bool = False) -> Outcome:
    kept = {key: value for key, value in shell.environment.items() if not key.startswith("HF_")}
    more = {"HF_ENDPOINT": hub_url, "HF_HUB_DISABLE_XET": "0" if xet else "1", "HF_HOME": str(shell.folder / "hf")}
    given = {"HF_TOKEN": token} if token is not None else {}
    return Shell(shell.folder, {**kept, **more, **given}).run("push", *arguments, timeout=120)


@pytest.mark.parametrize("xet", [False, True])
def test_the_model_is_at_the_top_its_origin_beside_it_and_no_texts(
    shell: Shell, hub: PushHub, published: Manifest, xet: bool
) -> None:
    done = pushed(shell, hub.url, "done", "me/tiny", "--private", "--json", xet=xet)
    assert done.status == 0, done.err
    answer: dict[str, Any] = json.loads(done.out)
    assert (answer["repo"], answer["commit"], answer["error"]) == ("me/tiny", COMMIT, None)
    assert {name: data.decode() for name, data in hub.files.items()} == {
        name.removeprefix("model/"): text for name, text in FILES.items() if not name.startswith("pairs/")
    }
    assert sorted(hub.files) == answer["files"]
    assert hub.commits == [f"prefstack publish-{published.fingerprint}"]
    assert [(repo["name"], repo.get("private", repo.get("visibility"))) for repo in hub.repos] in (
        [("tiny", True)], [("tiny", "private")],
    )  # fmt: skip
    # The store of chunks is another server than the hub, and never sees the hub's token.
    assert list(hub.xorbs.values()) == [b"weights"] * xet
    assert hub.store_tokens == ({f"Bearer {XET_TOKEN}"} if xet else set())


def test_without_a_token_nobody_is_asked_even_where_one_is_stored(
    shell: Shell, hub: PushHub, published: Manifest
) -> None:
    (shell.folder / "hf").mkdir()
    (shell.folder / "hf" / "token").write_text(TOKEN)
    done = pushed(shell, hub.url, "done", "me/tiny", token=None)
    assert (done.status, "HF_TOKEN is not set" in done.err, hub.repos) == (1, True, [])


@pytest.mark.parametrize(
    ("repo", "token", "status", "said"),
    [
        ("me/tiny", "hf_theWrongOne", 1, "does not accept the token in HF_TOKEN (401)"),
        ("others/tiny", TOKEN, 1, "may not write to others/tiny"),
        ("me/ti ny", TOKEN, 2, "is no name of a repository"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_token(
    repo: str, token: str, status: int, said: str, shell: Shell, hub: PushHub, published: Manifest
) -> None:
    done = pushed(shell, hub.url, "done", repo, "--json", token=token)
    assert done.status == status, done.err
    assert said in json.loads(done.out)["error"]["message"]
    assert "Traceback" not in done.err and token not in done.err + done.out
    assert hub.files == {}


def test_a_hub_that_is_not_there_is_named(shell: Shell, published: Manifest) -> None:
    done = pushed(shell, "http://127.0.0.1:9", "done", "me/tiny")
    assert done.status == 1 and "Traceback" not in done.err
    assert "the hub http://127.0.0.1:9 cannot be reached" in done.err


def test_what_has_changed_or_was_never_published_is_not_pushed(shell: Shell, hub: PushHub, published: Manifest) -> None:
    work_dir = shell.folder / "runs"
    open_run("early", load_recipe("demo", [f"work_dir={work_dir}"])).fail(InputError("broken"), "ingest")
    done = pushed(shell, hub.url, "early", "me/tiny")
    assert done.status == 2 and "run early has published no model: it stopped at ingest" in done.err
    card = published.path("model/README.md")
    os.utime(card)
    card.write_text(FILES["model/README.md"].replace("Tiny", "Tony"))
    done = pushed(shell, hub.url, "done", "me/tiny")
    assert done.status == 3 and "has other bytes in model/README.md" in done.err
    published.folder.rename(published.folder.with_name("gone"))
    done = pushed(shell, hub.url, "done", "me/tiny")
    assert done.status == 2 and "the model of run done is no longer in the store" in done.err
    published.folder.with_name("gone").rename(published.folder)
    assert hub.repos == [] and Path(card).exists()
