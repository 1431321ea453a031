"""The server for the files of the runs: what it shows, and what it refuses."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.files import ROOT_VARIABLE, URL_VARIABLE, serve_files, url_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "store" / "publish-ab" / "plots").mkdir(parents=True)
    (work / "store" / "publish-ab" / "report.html").write_text("<h1>report</h1>")
    (work / "runs" / "one" / "stages").mkdir(parents=True)
    (work / "runs" / "one" / "run.log").write_text("a line\n")
    (work / "runs" / "one" / ".lease").write_text("hidden")
    (work / "runs" / "one" / "stages" / "publish").symlink_to("../../../store/publish-ab")
    (work / "runs" / "one" / "escape").symlink_to(tmp_path)
    (work / "logps").mkdir()
    (work / "logps" / "a.parquet").write_text("not shown")
    (tmp_path / "secret").write_text("secret")
    return work


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with serve_files(root, 0) as url:
        yield url


def get(url: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), int(place.port or 80), timeout=5)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.mark.parametrize("path", ["/store/publish-ab/report.html", "/runs/one/stages/publish/report.html"])
def test_reports_open_by_folder_and_by_the_links_of_a_run(url: str, path: str) -> None:
    status, text, headers = get(url, path)
    assert (status, text) == (200, "<h1>report</h1>")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_log_is_shown_as_text(url: str) -> None:
    status, text, headers = get(url, "/runs/one/run.log")
    assert (status, text, headers["Content-type"]) == (200, "a line\n", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "/logps/a.parquet", "/runs/one/.lease", "/runs/one/escape/secret", "/../secret", "/runs/../../secret",
        "/runs/%2e%2e/%2e%2e/secret", "//etc/passwd", "/store/none",
    ],
)  # fmt: skip
def test_nothing_else_is_shown(url: str, path: str) -> None:
    status, text, _ = get(url, path)
    assert status == 404 and "secret" not in text.replace(path, "")


def test_a_request_by_another_name_is_refused(url: str) -> None:
    assert get(url, "/runs/one/run.log", host="evil.example.com")[0] == 403
    assert get(url, "/runs/one/run.log", host="localhost:4201")[0] == 200


def test_nothing_can_be_written(url: str) -> None:
    assert get(url, "/runs/one/run.log", method="PUT")[0] == 501


def test_a_path_has_a_url_only_where_it_is_served(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = root / "store" / "publish-ab" / "report.html"
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert url_of(report) is None
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:4201")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    assert url_of(report) == "http://127.0.0.1:4201/store/publish-ab/report.html"
    assert url_of(root / "runs" / "a b" / "x") == "http://127.0.0.1:4201/runs/a%20b/x"
    assert url_of(root / "logps" / "a.parquet") is None
    assert url_of(root.parent / "secret") is None
