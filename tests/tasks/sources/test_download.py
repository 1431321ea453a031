"""Downloads from a server that breaks off, forgets, lies and goes away."""

import hashlib
import json
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import py7zr
import pytest

from tasks.errors import InputError, RecipeError, Surroundings, Transient
from tasks.ingest import SourceConfig, ingest_source
from tasks.sources.download import fetched, file_name, shown
from tasks.store import Store
from tests.tasks.sources.web import Site, served

CONTENT = b"7z\xbc\xaf\x27\x1c" + random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()

Fetch = Callable[..., bytes]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.sources.download.PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def site() -> Iterator[Site]:
    with served(Site(CONTENT)) as site:
        yield site


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


def bring(site: Site, store: Store, sha256: str | None = None) -> bytes:
    return Path(fetched(site.url, sha256, store)).read_bytes()


def test_a_file_arrives_under_its_name_with_size_and_digest_noted(site: Site, store: Store) -> None:
    path = Path(fetched(site.url, None, store))
    assert path.read_bytes() == CONTENT
    assert path.name == "beer.stackexchange.com.7z"
    note = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert (note["size"], note["sha256"]) == (len(CONTENT), DIGEST)
    assert sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")) == [
        path.name, f"{path.name}.json",
    ]  # fmt: skip


def test_what_broke_off_is_gone_on_with(site: Site, store: Store) -> None:
    site.cut = [100_000, 50_000, 100_000, None]
    assert bring(site, store) == CONTENT
    assert [asked.get("range") for asked in site.requests] == [
        None,
        *(f"bytes={n}-" for n in (100_000, 150_000, 250_000)),
    ]
    assert site.sent == len(CONTENT)


def test_every_try_that_brings_something_is_followed_by_another(site: Site, store: Store) -> None:
    site.cut = [20_000] * 14
    assert bring(site, store) == CONTENT


def test_what_has_arrived_outlives_the_run_that_fetched_it(site: Site, store: Store) -> None:
    site.cut = [100_000, 0, 0, 0, 0]
    with pytest.raises(Transient, match="what has arrived is kept"):
        bring(site, store)
    assert bring(site, Store(store.work_dir)) == CONTENT
    assert site.requests[-1]["range"] == "bytes=100000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, store: Store) -> None:
    def change(site: Site, number: int) -> None:
        if number == 1:
            site.content, site.etag = CONTENT[::-1], '"two"'

    site.cut, site.before = [100_000, None], change
    assert bring(site, store) == CONTENT[::-1]
    assert site.requests[1]["if-range"] == '"one"'


def test_a_server_that_gives_a_part_of_another_file_is_not_believed(site: Site, store: Store) -> None:
    def change(site: Site, number: int) -> None:
        if number == 1:
            site.content, site.etag, site.checks = CONTENT[::-1], '"two"', False

    site.cut, site.before = [100_000, None, None], change
    assert bring(site, store) == CONTENT[::-1]


@pytest.mark.parametrize("how", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_where_a_part_cannot_be_had_or_trusted_the_whole_is_fetched_again(
    how: dict[str, object], site: Site, store: Store
) -> None:
    for name, value in how.items():
        setattr(site, name, value)
    site.cut = [100_000, None]
    assert bring(site, store) == CONTENT
    assert site.sent == 100_000 + len(CONTENT)


def test_a_date_tells_as_well_whether_the_file_is_the_same(site: Site, store: Store) -> None:
    site.etag, site.modified, site.cut = None, "Tue, 02 Apr 2024 10:00:00 GMT", [100_000, None]
    assert bring(site, store) == CONTENT
    assert site.sent == len(CONTENT)
    assert bring(site, store) == CONTENT
    assert site.requests[-1]["if-modified-since"] == site.modified
    assert site.sent == len(CONTENT)


def test_a_second_run_asks_whether_the_file_changed_and_fetches_nothing(site: Site, store: Store) -> None:
    bring(site, store)
    assert bring(site, store) == CONTENT
    assert site.requests[-1]["if-none-match"] == '"one"'
    assert site.sent == len(CONTENT)
    site.content, site.etag = b"other" * 1000, '"two"'
    assert bring(site, store) == b"other" * 1000


def test_a_pinned_file_is_not_even_asked_for_again(site: Site, store: Store) -> None:
    assert bring(site, store, DIGEST) == CONTENT
    assert bring(site, store, DIGEST) == CONTENT
    assert len(site.requests) == 1


def test_a_file_that_is_not_the_pinned_one_is_refused(site: Site, store: Store) -> None:
    with pytest.raises(InputError, match=f"has sha256 {DIGEST}, and the recipe pins {'0' * 64}"):
        bring(site, store, "0" * 64)


def test_a_server_in_trouble_is_asked_again(site: Site, store: Store) -> None:
    site.statuses = [500, 503, 429]
    assert bring(site, store) == CONTENT
    site.statuses, site.etag = [500] * 9, '"two"'
    assert bring(site, store) == CONTENT  # the copy that is here will do
    with pytest.raises(Transient, match="the server answers 500"):
        bring(site, Store(store.work_dir / "other"))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_not_there_is_an_input_error_at_once(status: int, site: Site, store: Store) -> None:
    site.statuses = [status] * 9
    with pytest.raises(InputError, match=str(status)):
        bring(site, store)
    assert len(site.requests) == 1


def test_a_web_page_in_place_of_the_file_is_refused(site: Site, store: Store) -> None:
    site.content, site.kind = b"\n<!DOCTYPE html><html><title>Log in</title></html>", "text/html"
    with pytest.raises(InputError, match="is a web page"):
        bring(site, store)
    site.content, site.etag = CONTENT, '"two"'
    assert bring(site, store) == CONTENT


def test_a_server_that_cannot_be_reached_is_no_fault_of_the_input(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/beer.stackexchange.com.7z"
    with pytest.raises(Surroundings, match="cannot be fetched") as caught:
        fetched(url, None, store)
    assert caught.value.status == 1
    with pytest.raises(Surroundings):
        fetched("http://no-such-host.invalid/beer.stackexchange.com.7z", None, store)


def test_an_answer_without_a_length_is_whole_when_it_ends(site: Site, store: Store) -> None:
    site.length = False
    assert bring(site, store) == CONTENT


def test_a_part_as_long_as_the_file_is_not_the_file(site: Site, store: Store) -> None:
    site.cut = [200_000, 0, 0, 0, 0]
    with pytest.raises(Transient):
        bring(site, store)
    site.content = CONTENT[:200_000]  # with the same validator: a server that lies
    assert bring(site, store) == CONTENT[:200_000]


def test_a_plan_fetches_nothing(site: Site, store: Store) -> None:
    with pytest.raises(Surroundings, match="not been downloaded yet"):
        fetched(site.url, None, replace(store, plan=True))
    assert not site.requests
    bring(site, store)
    assert Path(fetched(site.url, None, replace(store, plan=True))).read_bytes() == CONTENT


def test_names_and_messages_keep_secrets_and_folders_out() -> None:
    assert shown("https://user:secret@host.org:8080/a/b.7z?token=secret#x") == "https://host.org:8080/a/b.7z"
    assert file_name("https://h.org/a/..%2F..%2Fetc%2Fpasswd") == "passwd"
    assert file_name("https://h.org/.%2e") == "download"
    assert file_name("https://h.org/x%00y z.7z?q=/w.7z") == "x_y_z.7z"


def test_a_dump_by_url_is_the_dump_by_path(site: Site, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "beer.stackexchange.com"
    folder.mkdir()
    rows = '<row Id="1" PostTypeId="1" Score="1" CreationDate="2014-01-21T20:26:05.383" Body="q" />'
    (folder / "Posts.xml").write_text(f"<posts>\n{rows}\n</posts>")
    archive = tmp_path / "beer.stackexchange.com.7z"
    with py7zr.SevenZipFile(archive, "w") as packed:
        packed.write(folder / "Posts.xml", "Posts.xml")
    site.content, site.cut = archive.read_bytes(), [50, None]
    by_url = ingest_source(store, SourceConfig(path=site.url, sha256=hashlib.sha256(site.content).hexdigest()))
    assert by_url.counts["questions"] == 1
    assert by_url.provenance["source"]["path"] == site.url
    assert by_url.provenance["source"]["sha256"] == hashlib.sha256(site.content).hexdigest()
    assert ingest_source(store, SourceConfig(path=str(archive))).reused
    with pytest.raises(InputError, match="no 7z archive"):
        site.content, site.etag = b"not an archive at all", '"two"'
        ingest_source(store, SourceConfig(path=site.url))


def test_pairs_by_url_are_read_too(site: Site, store: Store) -> None:
    site.content = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
    assert ingest_source(store, SourceConfig(kind="jsonl", path=site.url)).counts["pairs"] == 1


def test_a_url_that_is_none_is_refused(store: Store) -> None:
    for url in ("http://", "https://[bad/x.7z", "http://host:notaport/x.7z"):
        with pytest.raises(RecipeError, match="no address"):
            fetched(url, None, store)
