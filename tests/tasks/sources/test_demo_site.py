"""The made site: a true archive, the same every time, whose preference is not one of length."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from html import unescape
from itertools import combinations
from pathlib import Path

import py7zr
import pytest

from tasks.digests import sha256_of
from tasks.pairs import is_host
from tasks.sources.demo_answers import topic
from tasks.sources.demo_site import AGAIN, ARCHIVE, write_demo_site

Row = dict[str, str]
QUESTIONS = 180


def unpacked(archive: Path, folder: Path) -> dict[str, bytes]:
    with py7zr.SevenZipFile(archive) as opened:
        opened.extractall(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_site(folder / ARCHIVE, seed=42, questions=QUESTIONS)
    return unpacked(folder / ARCHIVE, folder / "members")


@pytest.fixture(scope="module")
def posts(members: dict[str, bytes]) -> list[Row]:
    return [row.attrib for row in ElementTree.fromstring(members["Posts.xml"])]


def threads(posts: list[Row]) -> list[tuple[Row, list[Row]]]:
    answers: dict[str, list[Row]] = defaultdict(list)
    for post in posts:
        if post["PostTypeId"] == "2":
            answers[post["ParentId"]].append(post)
    return [(post, answers[post["Id"]]) for post in posts if post["PostTypeId"] == "1"]


def text(post: Row) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", post["Body"])).strip()


def by_votes(posts: list[Row]) -> list[tuple[Row, Row, Row]]:
    """Question, better and worse answer, by raw votes."""
    return [
        (question, *sorted(pair, key=lambda post: -int(post["Score"])))
        for question, answers in threads(posts)
        for pair in combinations(answers, 2)
        if pair[0]["Score"] != pair[1]["Score"]
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_texts(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        write_demo_site(tmp_path / name / ARCHIVE, seed=seed, questions=20)
    assert sha256_of(tmp_path / "one" / ARCHIVE) == sha256_of(tmp_path / "again" / ARCHIVE)
    one, two = (unpacked(tmp_path / name / ARCHIVE, tmp_path / name / "members") for name in ("one", "two"))
    assert one["Posts.xml"] != two["Posts.xml"]


def test_the_files_are_laid_out_as_in_an_official_dump(members: dict[str, bytes]) -> None:
    assert set(members) == {"Posts.xml", "Users.xml"}
    assert is_host(ARCHIVE.removesuffix(".7z"))
    for name, root in (("Posts.xml", "posts"), ("Users.xml", "users")):
        lines = members[name].decode("utf-8").split("\r\n")
        assert lines[0] == '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        assert (lines[1], lines[-1]) == (f"<{root}>", f"</{root}>")
        assert all(line.startswith("  <row Id=") and line.endswith(" />") for line in lines[2:-1])
        assert "\n" not in "".join(lines) and len(lines) > 20


def test_every_reference_holds(posts: list[Row], members: dict[str, bytes]) -> None:
    ids = [int(post["Id"]) for post in posts]
    assert ids == sorted(set(ids))
    assert [post["CreationDate"] for post in posts] == sorted(post["CreationDate"] for post in posts)
    users = {row.attrib["Id"] for row in ElementTree.fromstring(members["Users.xml"])}
    assert {post["OwnerUserId"] for post in posts if "OwnerUserId" in post} <= users
    assert all(("OwnerUserId" in post) != ("OwnerDisplayName" in post) for post in posts)
    found = threads(posts)
    assert sum(len(answers) for _, answers in found) == sum(post["PostTypeId"] == "2" for post in posts)
    for question, answers in found:
        assert int(question["AnswerCount"]) == len(answers)
        if "AcceptedAnswerId" in question:
            assert question["AcceptedAnswerId"] in {answer["Id"] for answer in answers}
        assert all(answer["CreationDate"] > question["CreationDate"] for answer in answers)


def test_it_has_what_a_reader_of_dumps_must_be_ready_for(posts: list[Row]) -> None:
    kinds = Counter(post["PostTypeId"] for post in posts)
    assert kinds["1"] == QUESTIONS
    assert {"1", "2", "4", "5", "6", "7"} == set(kinds)
    assert {post["ContentLicense"] for post in posts} == {"CC BY-SA 3.0", "CC BY-SA 4.0"}
    found = threads(posts)
    assert {0, 1, 2, 3} == {len(answers) for _, answers in found}
    assert any("OwnerUserId" not in post for post in posts)
    assert any("LastEditDate" in post for post in posts) and any("ClosedDate" in post for post in posts)
    assert any(int(post["Score"]) < 0 for post in posts if post["PostTypeId"] == "2")
    both_ranked_minus_one = [a for _, a in found if sum(int(answer["Score"]) < 0 for answer in a) == 2]
    assert both_ranked_minus_one, "no ties below zero"
    bodies = " ".join(post["Body"] for post in posts)
    assert all(mark in bodies for mark in ("<ol>\n<li>", "<pre><code>", '<a href="https://', "crème brûlée"))


def test_the_liked_answer_is_the_longer_one_in_half_of_the_pairs(posts: list[Row]) -> None:
    pairs = by_votes(posts)
    assert len(pairs) >= 200
    longer = sum(len(text(better)) > len(text(worse)) for _, better, worse in pairs) / len(pairs)
    assert 0.4 <= longer <= 0.6
    words = sum(len(text(better).split()) > len(text(worse).split()) for _, better, worse in pairs) / len(pairs)
    assert 0.4 <= words <= 0.6


def test_no_sentence_and_no_form_tells_the_liked_answers(posts: list[Row]) -> None:
    pairs = by_votes(posts)
    liked = [better for _, better, _ in pairs]
    for answers in (liked, [worse for *_, worse in pairs]):
        sentences = Counter(s for answer in answers for s in set(re.split(r"(?<=[.!?])\s+", text(answer))))
        assert sentences.most_common(1)[0][1] < 0.2 * len(answers)
        for form in ("<ol>", "<pre>", "<a "):
            assert any(form in answer["Body"] for answer in answers)


def test_texts_are_said_twice_only_where_that_is_planned(posts: list[Row]) -> None:
    bodies = [text(question) for question, _ in threads(posts)]
    assert len(bodies) - len(set(bodies)) == QUESTIONS // AGAIN  # the planned repetitions, each of one question

    def shingles(body: str) -> set[tuple[str, ...]]:
        words = body.lower().split()
        return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}

    sets = [shingles(body) for body in set(bodies)]
    near = [1 for a, b in combinations(sets, 2) if len(a & b) / len(a | b) >= 0.8]
    assert len(near) == QUESTIONS // AGAIN  # the threads with a few words more


def test_topics_do_not_come_back_before_all_have_been(posts: list[Row]) -> None:
    assert len({topic(7, number) for number in range(4_224)}) == 4_224
