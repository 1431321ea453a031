"""Archives from anywhere: what is taken out of them, and what is refused."""

import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import py7zr
import pytest

from tasks.errors import InputError, RecipeError

SITE = "bread.stackexchange.com"
POSTS = (
    b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n'
    b'  <row Id="1" PostTypeId="1" CreationDate="2014-01-21T20:26:05.383" Score="2" Body="Why?" OwnerUserId="3" />\r\n'
    b'  <row Id="2" PostTypeId="2" ParentId="1" CreationDate="2014-01-22T20:26:05.383" Score="1" Body="So." />\r\n'
    b"</posts>"
)
USERS = b'<users><row Id="3" DisplayName="Ann" /></users>'


def packed(path: Path, members: dict[str, bytes], **how: Any) -> Path:
    """A .7z at `path` with these members."""
    with py7zr.SevenZipFile(path, "w", **how) as archive:
        for name, data in members.items():
            archive.writestr(data, name)
    return path


def misnamed(folder: Path, name: str, bad: str) -> Path:
    """An archive whose member is renamed behind the library's back, which would not write such a name."""
    path = folder / f"{SITE}.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(POSTS, name)
    raw = bytearray(path.read_bytes())
    at = raw.find(name.encode("utf-16-le") + b"\0\0")
    assert at > 0 and len(name) == len(bad)
    raw[at : at + 2 * len(name)] = bad.encode("utf-16-le")
    offset, size = struct.unpack_from("<QQ", raw, 12)
    struct.pack_into("<I", raw, 28, zlib.crc32(raw[32 + offset : 32 + offset + size]))
    struct.pack_into("<I", raw, 8, zlib.crc32(raw[12:32]))
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("name", ["Posts.xml", "posts.xml", "bread.stackexchange.com/Posts.xml", "a/b/POSTS.XML"])
def test_posts_are_found_wherever_they_are_in_the_archive(
    tmp_path: Path, ingest: Callable[..., Any], name: str
) -> None:
    found = ingest(packed(tmp_path / f"{SITE}.7z", {"Votes.xml": b"<votes/>", name: POSTS, "Users.xml": USERS}))
    assert found.ids == [1, 2]
    assert pl.read_parquet(found.manifest.path("users.parquet")).rows() == [(3, "Ann")]


def test_the_source_is_recorded_with_its_checksum(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    import hashlib

    path = packed(tmp_path / f"{SITE}.7z", {"Posts.xml": POSTS})
    source = ingest(path).manifest.provenance["source"]
    assert source == {
        "kind": "dump", "site": SITE, "path": str(path), "file": path.name, "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip


def test_an_archive_a_folder_and_a_file_give_the_same_posts(
    tmp_path: Path, site_folder: Path, ingest: Callable[..., Any]
) -> None:
    (site_folder / "Posts.xml").write_bytes(POSTS)
    archive = packed(tmp_path / f"{SITE}.7z", {"Posts.xml": POSTS})
    found = [ingest(path, work=f"work-{path.name}") for path in (archive, site_folder, site_folder / "Posts.xml")]
    assert all(each.posts.equals(found[0].posts) for each in found)
    assert found[1].manifest.fingerprint == found[2].manifest.fingerprint


def test_only_posts_and_users_leave_the_archive(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    members = {"Posts.xml": POSTS, "evil.py": b"x", "Users.xml": USERS, "Votes.xml": b"<votes/>"}
    found = ingest(packed(tmp_path / f"{SITE}.7z", members))
    names = {path.name for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert not names & {"evil.py", "Votes.xml"}
    assert sorted(found.manifest.files) == [
        "dropped.parquet", "posts.parquet/part-00000.parquet", "users.parquet/part-00000.parquet",
    ]  # fmt: skip


def test_stack_overflow_comes_as_an_archive_a_table(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    posts = packed(tmp_path / "stackoverflow.com-Posts.7z", {"Posts.xml": POSTS})
    packed(tmp_path / "stackoverflow.com-Users.7z", {"Users.xml": USERS})
    found = ingest(posts)
    assert found.posts["site"].unique().to_list() == ["stackoverflow.com"]
    assert pl.read_parquet(found.manifest.path("users.parquet")).rows() == [(3, "Ann")]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"Users.xml": USERS}, "holds no Posts.xml"),
        ({"Posts.xml": POSTS, "old/posts.xml": POSTS}, "holds 2 files"),
        ({"Posts.xml": b"<html>404"}, "web page"),
        ({"Posts.xml": POSTS, "Users.xml": b"<users><row Id="}, "Users.xml"),
    ],
)
def test_an_archive_without_one_good_posts_file_is_refused(
    tmp_path: Path, ingest: Callable[..., Any], members: dict[str, bytes], said: str
) -> None:
    path = packed(tmp_path / f"{SITE}.7z", members)
    with pytest.raises(InputError, match=said) as refusal:
        ingest(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("bad", ["/etc/Posts.xml", "../a/Posts.xml", "C:\\a/Posts.xml", "..\\b\\Posts.xml"])
def test_a_member_that_points_outside_is_refused(tmp_path: Path, ingest: Callable[..., Any], bad: str) -> None:
    name = "d" * (len(bad) - 10) + "/Posts.xml"
    path = misnamed(tmp_path, name, bad)
    with pytest.raises(InputError, match="points outside"):
        ingest(path)


def test_a_link_called_posts_is_not_followed(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(POSTS)
    link = tmp_path / "Posts.xml"
    link.symlink_to(secret)
    path = tmp_path / f"{SITE}.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.write(link, "Posts.xml")
    with pytest.raises(InputError, match="link or a device"):
        ingest(path)


def test_a_folder_called_posts_is_no_file(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    (tmp_path / "Posts.xml").mkdir()
    path = tmp_path / f"{SITE}.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writeall(tmp_path / "Posts.xml", "Posts.xml")
    with pytest.raises(InputError, match=r"holds no Posts\.xml"):
        ingest(path)


@pytest.mark.parametrize("hidden_names", [False, True])
def test_a_password_is_named_as_the_reason(tmp_path: Path, ingest: Callable[..., Any], hidden_names: bool) -> None:
    path = packed(tmp_path / f"{SITE}.7z", {"Posts.xml": POSTS}, password="x", header_encryption=hidden_names)
    with pytest.raises(InputError, match="locked with a password"):
        ingest(path)


def test_an_archive_that_grows_out_of_proportion_is_refused_before_it_does(
    tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    bomb = {"Votes.xml": bytes(40_000_000), "Posts.xml": POSTS}
    path = packed(tmp_path / f"{SITE}.7z", bomb)
    with pytest.raises(InputError, match="max_ratio"):
        ingest(path)
    with pytest.raises(InputError, match="max_unpacked_gb"):
        ingest(path, max_ratio=1e6, max_unpacked_gb=0.001)
    assert ingest(path, max_ratio=1e6).ids == [1, 2]


def test_any_shortened_or_changed_archive_is_refused_or_gives_the_same_posts(
    tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    whole = packed(tmp_path / f"{SITE}.7z", {"Users.xml": USERS, "Posts.xml": POSTS}).read_bytes()
    expected = ingest(tmp_path / f"{SITE}.7z").posts
    step = max(1, len(whole) // 12)
    hurt = [whole[:size] for size in (0, 3, 6, 31, 32, *range(33, len(whole), step))]
    for at in range(2, len(whole), step):
        changed = bytearray(whole)
        changed[at] ^= 0x55
        hurt.append(bytes(changed))
    refused = 0
    for number, data in enumerate(hurt):
        folder = tmp_path / f"hurt-{number}"
        folder.mkdir()
        (folder / f"{SITE}.7z").write_bytes(data)
        try:
            assert ingest(folder / f"{SITE}.7z", work=f"work-{number}").posts.equals(expected)
        except InputError as error:
            refused += 1
            assert f"hurt-{number}/{SITE}.7z" in str(error)
            assert "\n" not in str(error)
    assert refused > len(hurt) // 2


def test_the_name_of_the_site_comes_from_archive_folder_or_key(tmp_path: Path, ingest: Callable[..., Any]) -> None:
    path = packed(tmp_path / "dump.7z", {"Posts.xml": POSTS})
    with pytest.raises(RecipeError, match="site"):
        ingest(path)
    assert ingest(path, site="Bread.StackExchange.com").posts["site"].unique().to_list() == [SITE]
    with pytest.raises(RecipeError, match="not a host name"):
        ingest(path, site="bread/../x")
    for name in ("bread.meta.stackexchange.com", "meta.bread.stackexchange.com"):
        shutil.copy(path, tmp_path / f"{name}.7z")
        assert ingest(tmp_path / f"{name}.7z").posts["site"].unique().to_list() == [name]


@pytest.mark.parametrize("missing", ["none.7z", "none/Posts.xml", "\0", "x" * 300, "a\nb"])
def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path, ingest: Callable[..., Any], missing: str) -> None:
    with pytest.raises(InputError):
        ingest(tmp_path / missing, site=SITE)


def test_a_folder_without_posts_is_refused_and_an_archive_in_it_pointed_at(
    site_folder: Path, ingest: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=r"holds no Posts\.xml"):
        ingest(site_folder)
    packed(site_folder / f"{SITE}.7z", {"Posts.xml": POSTS})
    with pytest.raises(InputError, match=rf"it holds {SITE}\.7z"):
        ingest(site_folder)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/proc/self/mem"])
def test_devices_are_not_read(ingest: Callable[..., Any], device: str) -> None:
    with pytest.raises(InputError):
        ingest(Path(device), site=SITE)


def stand_in(folder: Path, program: str) -> None:
    """A program called 7zz that does what the test says, in Python; `archive` and `member` are its last arguments."""
    folder.mkdir()
    script = folder / "7zz"
    script.write_text(f"#!{sys.executable}\nimport sys\narchive, member = sys.argv[-2:]\n{program}\n")
    script.chmod(0o755)


HONEST = """
import py7zr
with py7zr.SevenZipFile(archive) as opened:
    factory = py7zr.io.BytesIOFactory(1 << 26)
    opened.extract(targets=[member], factory=factory)
sys.stdout.buffer.write(next(iter(factory.products.values())).read())
"""


def test_seven_zip_unpacks_where_it_is_installed(
    tmp_path: Path, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / f"{SITE}.7z", {"a/Posts.xml": POSTS, "Users.xml": USERS})
    expected = ingest(path, work="by-library").manifest
    stand_in(tmp_path / "bin", f"open({str(tmp_path / 'ran')!r}, 'a').write(member + '\\n')\n{HONEST}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    found = ingest(path, work="by-program").manifest
    assert (tmp_path / "ran").read_text() == "a/Posts.xml\nUsers.xml\n"
    assert found.files == expected.files


@pytest.mark.parametrize(
    "program",
    ["sys.exit(2)", HONEST + "sys.exit(2)", "sys.stdout.write('<posts></posts>')",
     "while True: sys.stdout.write(' ' * 65536)"],
    ids=["fails", "fails at the end", "gives less", "gives without end"],
)  # fmt: skip
def test_a_program_that_gives_other_than_the_archive_says_is_not_believed(
    tmp_path: Path, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    path = packed(tmp_path / f"{SITE}.7z", {"Posts.xml": POSTS})
    stand_in(tmp_path / "bin", program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(InputError, match="damaged or cut short"):
        ingest(path)


def test_a_program_that_gets_too_little_memory_says_nothing_of_damage(
    tmp_path: Path, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / f"{SITE}.7z", {"Posts.xml": POSTS})
    complaint = "ERROR: Can't allocate required memory!"  # as 7-Zip 22 to 26 says it; its status is that of bad data
    stand_in(tmp_path / "bin", f"print({complaint!r}, file=sys.stderr)\nsys.exit(2)")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(InputError, match="more than 1024 MiB of memory"):
        ingest(path)


@pytest.mark.faults  # which install the program
@pytest.mark.parametrize("method", [py7zr.FILTER_BZIP2, py7zr.FILTER_LZMA2])
def test_the_real_seven_zip_gives_what_the_library_gives(
    tmp_path: Path, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, method: int
) -> None:
    members = {"Votes.xml": b"<votes/>", "Posts.xml": POSTS, "Users.xml": USERS}
    path = packed(tmp_path / f"{SITE}.7z", members, filters=[{"id": method}])
    by_program = ingest(path, work="by-program").manifest
    monkeypatch.setenv("PATH", "/nowhere")
    assert ingest(path, work="by-library").manifest.files == by_program.files
