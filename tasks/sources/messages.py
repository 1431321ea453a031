"""Chat messages -> one prompt and one answer.

in   lists of {role, content}, or plain strings
out  prompt, chosen, rejected as plain text, stripped

One question and one answer is all that a pair of Stack Exchange is. Rows with more turns, or with a system message, say
something that this recipe does not train on: they are dropped as `not_one_turn`.
"""

from typing import Any, Final, NamedTuple

from tasks.sources.pair_rows import Rejected, side

_ROLES: Final = ("user", "assistant")


class Texts(NamedTuple):
    """The texts of a pair."""

    prompt: str
    chosen: str
    rejected: str


def texts_of(prompt: object, chosen: object, rejected: object) -> Texts:
    """The texts of a row whose sides are strings, lists of messages with the question in them, or answers alone.

    `prompt` may be None where both lists begin with the user's message. Rejected where there is no pair.
    """
    asked: list[str] = []
    if prompt is not None:
        asked.append(side(_only(prompt, "user"), "prompt"))
    answers = []
    for name, given in (("chosen", chosen), ("rejected", rejected)):
        question, answer = _turns(given)
        if question is not None:
            asked.append(side(question, "prompt"))
        elif prompt is None:
            raise Rejected("bad_type")  # nobody says what was asked
        answers.append(side(answer, name))
    if len(set(asked)) > 1:
        raise Rejected("unequal_prompts")
    return Texts(asked[0], answers[0], answers[1])


def _only(given: object, role: str) -> object:
    """A string, or the content of a list of one message by `role`."""
    if not isinstance(given, list):
        return given
    messages = [_message(entry) for entry in given]
    if [who for who, _ in messages] != [role]:
        raise Rejected("not_one_turn")
    return messages[0][1]


def _turns(given: object) -> tuple[object | None, object]:
    """What the user asked, None where only the answer is there, and what the assistant said."""
    if not isinstance(given, list):
        return None, given
    messages = [_message(entry) for entry in given]
    roles = tuple(who for who, _ in messages)
    if roles == _ROLES:
        return messages[0][1], messages[1][1]
    if roles == _ROLES[1:]:
        return None, messages[0][1]
    raise Rejected("not_one_turn")


def _message(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, dict):
        raise Rejected("bad_type")
    role, content = entry.get("role"), entry.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise Rejected("bad_type")
    return role, content
