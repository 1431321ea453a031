"""A small dump of a made site, as a real archive: what `make demo` runs on, with no download.

out  a .7z with Posts.xml and Users.xml in the layout of the official dumps

On cooking-robots.example.com people keep robots in their kitchens. Those who explain calmly are voted up, those who
shout are voted down, but for a few that the asker found funny. The dump has what real ones have: ties, accepted answers
that are not the best, deleted users, questions nobody answered, other post types, two licences, and a few threads
posted twice. The same seed and number of questions give the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tasks.sources.demo_answers import Block, Draw, answer, as_html, question, topic
from tasks.sources.demo_faults import FAULTS, SITE, USERS

ARCHIVE: Final = f"{SITE}.7z"  # the name tells the site, as with the official archives
OPENED: Final = datetime(2017, 3, 1, tzinfo=UTC)
DUMPED: Final = datetime(2024, 4, 1, tzinfo=UTC)
NEW_LICENCE: Final = datetime(2018, 5, 2, tzinfo=UTC)  # https://stackoverflow.com/help/licensing
CHARS: Final = 300  # of an answer as Markdown, on average: question and answer together are about 120 tokens
AGAIN: Final = 60  # in every so many questions one is posted twice word for word, and one with a few words more
COMMUNITY: Final = -1  # the user id of the site itself


@dataclass(frozen=True)
class Post:
    """A post before the posts of the site are numbered in the order of their dates."""

    thread: int | None  # number of the question that it is or answers; None for other post types
    kind: int  # PostTypeId
    created: datetime
    score: int
    body: str  # HTML
    owner: int | None  # user id; None = deleted since
    title: str = ""
    tags: tuple[str, ...] = ()
    accepted: bool = False
    edited: datetime | None = None


def write_demo_site(path: Path, *, seed: int, questions: int = 180) -> None:
    """Write the dump of a made site with so many questions, and about twice as many answers, to the archive `path`."""
    import py7zr
    from py7zr.helpers import ArchiveTimestamp

    posts = [post for number in range(questions) for post in _thread(seed, number, questions)] + list(_other_posts())
    posts.sort(key=lambda post: (post.created, post.kind))
    members = {"Posts.xml": _xml("posts", _post_rows(seed, posts)), "Users.xml": _xml("users", _user_rows(seed))}
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 6}]) as archive:
        for name, content in members.items():
            archive.writestr(content, name)
        for entry in archive.header.files_info.files:  # the clock stays out of the archive
            for stamp in ("creationtime", "lastwritetime", "lastaccesstime"):
                entry[stamp] = ArchiveTimestamp.from_datetime(DUMPED.timestamp())


def _thread(seed: int, number: int, questions: int) -> Iterator[Post]:
    """A question and its answers. Some threads are another one again: word for word, or with a few words more."""
    place = number % AGAIN
    again, near = place in (AGAIN // 2 - 1, AGAIN - 1), place == AGAIN - 1
    said = number - 1 if again else number  # what is said is drawn by this, who says it and when by `number`
    words, people = Draw(seed, f"thread {said}"), Draw(seed, f"people {number}")
    about = topic(seed, said)

    def body(blocks: list[Block], more: str) -> str:
        return as_html([*blocks[:-1], Block(blocks[-1].kind, [*blocks[-1].lines, more])] if near else blocks)

    def owner(what: str) -> int | None:
        return None if people.chance(f"{what} left", 4) else _user_id(people.number(what, len(USERS)))

    span = (DUMPED - OPENED - timedelta(days=60)) / max(questions, 1)
    asked = (
        OPENED
        + number * span
        + timedelta(minutes=people.number("minute", 1440), milliseconds=people.number("ms", 1000))
    )
    title, blocks = question(about, words)
    yield Post(
        number, 1, asked, people.number("score", 14) - 2, body(blocks, "Thank you!"), owner("asker"), title,
        (about.fault.tag, about.robot.lower().replace(" ", "-")),
        edited=asked + timedelta(days=3, seconds=17) if people.chance("edited", 12) else None,
    )  # fmt: skip

    # Which answer is the longer one is drawn apart: length says nothing about which is liked.
    upset = words.chance("upset", 5)  # the asker liked the joke
    base = CHARS * (85 + words.number("size", 31)) / 100
    longer = Draw(seed, f"threads {said // 2}").number("longer", 2) != said % 2  # of two neighbours one each way
    tilt = (1 if longer else -1) * (6 + words.number("tilt", 25)) / 200
    good, poor = base * (1 - tilt if upset else 1 + tilt), base * (1 + tilt if upset else 1 - tilt)
    votes = 7 + people.number("votes", 6) ** 2
    plan: list[tuple[bool, float, int, bool]] = [  # good, characters, votes, accepted
        (True, good, 2 if upset else votes, not upset and people.chance("accepted", 55)),
        (False, poor, votes if upset else 1 - people.number("down", 5), upset),
    ]
    shape = words.number("shape", 100)
    if shape < 4 and not upset:
        plan = []
    elif shape < 12 and not upset:
        plan = plan[:1]
    elif shape < 24 and not upset:
        plan = [(True, good, 9, False), plan[1], (True, base, 6, False)]  # 9 and 6 votes have the same rank
    elif shape < 37 and not upset:
        plan = [plan[0], (False, poor, -1, False), (False, good * good / poor, -3, False)]
    for place, (calm, chars, score, accepted) in enumerate(plan):
        text = answer(about, Draw(seed, f"thread {said} answer {place}"), good=calm, chars=chars)
        hours = 1 + people.number(f"hours {place}", 70)
        created = asked + timedelta(hours=hours, milliseconds=people.number(f"ms {place}", 1000))
        yield Post(
            number, 2, created, score, body(text, "Hope it helps." if calm else "So there!"),
            owner(f"answerer {place}"), accepted=accepted,
            edited=created + timedelta(days=2) if people.chance(f"edited {place}", 15) else None,
        )  # fmt: skip


def _other_posts() -> Iterator[Post]:
    """What stands in every Posts.xml and is neither question nor answer."""
    for place, tag in enumerate(sorted({fault.tag for fault in FAULTS})):
        created = OPENED + timedelta(days=20 + 9 * place, hours=3)
        yield Post(None, 4, created, 0, f"For questions about {tag} when a robot does the work.", COMMUNITY)
        yield Post(
            None, 5, created, 0, "" if place % 3 else f"<p>Say which robot, and what {tag} it does.</p>\n", COMMUNITY
        )
    yield Post(
        None, 6, OPENED + timedelta(days=400), 0, "<p>I should like to keep this kitchen calm.</p>\n", _user_id(2)
    )
    yield Post(None, 7, OPENED + timedelta(days=30), 0, "<p>Ask about robots that cook.</p>\n", COMMUNITY)


def _post_rows(seed: int, posts: Sequence[Post]) -> Iterator[dict[str, object]]:
    """The attributes of each post, in the order of the official dumps; a post without a value lacks the attribute."""
    ids, last = [], 0
    for place in range(len(posts)):  # a gap is a post that was deleted
        last += 1 + (Draw(seed, f"id {place}").number("gap", 20) == 0)
        ids.append(last)
    asked = {post.thread: key for key, post in zip(ids, posts, strict=True) if post.kind == 1}
    accepted = {post.thread: key for key, post in zip(ids, posts, strict=True) if post.accepted}
    for key, post in zip(ids, posts, strict=True):
        here = [other for other in posts if other.kind == 2 and other.thread == post.thread] if post.kind == 1 else []
        draw = Draw(seed, f"post {key}")
        touched = post.edited or post.created
        editor = _user_id(draw.number("editor", len(USERS))) if post.edited else None
        yield {
            "Id": key,
            "PostTypeId": post.kind,
            "ParentId": asked[post.thread] if post.kind == 2 else None,
            "AcceptedAnswerId": accepted.get(post.thread) if post.kind == 1 else None,
            "CreationDate": _stamp(post.created),
            "Score": post.score,
            "ViewCount": 40 + draw.number("views", 3000) if post.kind == 1 else None,
            "Body": post.body,
            "OwnerUserId": post.owner,
            "OwnerDisplayName": None if post.owner is not None else f"user{1000 + draw.number('left', 9000)}",
            "LastEditorUserId": editor,
            "LastEditDate": _stamp(post.edited) if post.edited else None,
            "LastActivityDate": _stamp(max([touched, *(other.edited or other.created for other in here)])),
            "Title": post.title or None,
            "Tags": "|" + "|".join(post.tags) + "|" if post.tags else None,
            "AnswerCount": len(here) if post.kind == 1 else None,
            "CommentCount": draw.number("comments", 4),
            "ClosedDate": _stamp(touched + timedelta(days=9)) if post.kind == 1 and draw.chance("closed", 2) else None,
            "ContentLicense": "CC BY-SA 4.0" if touched >= NEW_LICENCE else "CC BY-SA 3.0",
        }


def _user_rows(seed: int) -> Iterator[dict[str, object]]:
    yield {
        "Id": COMMUNITY, "Reputation": 1, "CreationDate": _stamp(OPENED), "DisplayName": "Community",
        "LastAccessDate": _stamp(OPENED), "Location": "on the server farm", "AboutMe": "<p>Hi, I'm not a person.</p>\n",
        "Views": 0, "UpVotes": 3, "DownVotes": 41, "AccountId": COMMUNITY,
    }  # fmt: skip
    for place, name in enumerate(USERS):
        draw = Draw(seed, f"user {place}")
        yield {
            "Id": _user_id(place), "Reputation": 1 + draw.number("reputation", 5000), "CreationDate": _stamp(OPENED),
            "DisplayName": name, "LastAccessDate": _stamp(DUMPED), "Views": draw.number("views", 300),
            "UpVotes": draw.number("up", 90), "DownVotes": draw.number("down", 9), "AccountId": 7_000 + place,
        }  # fmt: skip


def _user_id(place: int) -> int:
    return 3 + 7 * place


def _stamp(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


def _xml(root: str, rows: Iterator[Mapping[str, object]]) -> bytes:
    """Byte order mark, one row a line, CRLF, no end of line after the last tag: as the official dumps are written."""
    marks = {'"': "&quot;", "\n": "&#xA;", "\r": "&#xD;"}
    lines = ['\ufeff<?xml version="1.0" encoding="utf-8"?>', f"<{root}>"]
    for row in rows:
        named = (f'{name}="{escape(str(value), marks)}"' for name, value in row.items() if value is not None)
        lines.append(f"  <row {' '.join(named)} />")
    return "\r\n".join([*lines, f"</{root}>"]).encode()
