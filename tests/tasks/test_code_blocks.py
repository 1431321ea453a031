"""What counts as code in a Markdown text: the lines marked `|` of each text below, and no other."""

import time

import pytest

from tasks.code_blocks import code_chars, code_share, without_code

TEXTS = {
    "no code": ["some `x = 1` and ```y``` within a line", "    and a line that goes on"],
    "fenced": ["a", "|```python", "|x", "|", "|y", "|```", "b"],
    "fenced by tildes": ["a", "|~~~", "|```", "|~~~", "b"],
    "closed by no fewer marks than opened it": ["|````", "|```", "|`````", "b"],
    "closed by nothing but marks": ["|```", "|``` a", "|```  ", "b"],
    "never closed": ["a", "|```", "|x", "|~~~", "|"],
    "backticks that go on are no fence": ["```x``` is code", "b"],
    "indented": ["a", "", "|    x", "|", "|\ty", "", "b"],
    "indented from the beginning, or after a heading": ["|    x", "# heading", "|    y"],
    "a line that is indented after a line of prose": ["a", "    goes on"],
    "fence in a list": ["1. a", "", "|   ```", "|   x", "|   ```", "", "   more", "", "2. b"],
    "fence as the beginning of a list item": ["|- ```", "|  x", "|  ```", "  more"],
    "fence in a list in a list": ["- a", "  - b", "", "|    ~~~", "|    x", "|    ~~~", "    more"],
    "fence that its list item ends": ["- a", "", "|  ```", "|  x", "b"],
    "paragraph of a list item": ["- a", "", "    goes on", "10. b", "", "    goes on"],
    "indented in a list item": ["- a", "", "|      x", "", "b", "", "|    y"],
    "fence in a quotation": ["> a", "> ", "|> ```", "|> x", "|>", "|> ```", "> b"],
    "fence that its quotation ends": ["|> ```", "|> x", "b"],
    "indented in a quotation": ["> a", ">", "|>     x", "", "b"],
    "marks of quotations in an indented block": ["a", "", "|    > x", "|    >>> y", "", "- b", "", "|      > x"],
    "marks that are indented in an indented quotation": ["> a", ">", "|>     > x", "b"],
    "a quotation in a list in a list": ["- a", "  - b", "", "    > c", "    >", "|    >     x"],
    "a quotation in a fence": ["|```", "|> ```", "|```", "b"],
    "rows of dashes are rules, not lists": ["- - -", "|    x", "* * *", "b"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_code_is_the_lines_of_blocks(name: str) -> None:
    marked = TEXTS[name]
    text = "\n".join(line.removeprefix("|") for line in marked)
    prose = "".join(f"{line}\n" for line in marked if not line.startswith("|"))
    assert without_code(text).removesuffix("\n") == prose.removesuffix("\n")
    assert code_chars(text) == len(text) - len(without_code(text))


def test_the_share_is_of_all_characters_line_ends_and_fences_too() -> None:
    assert code_share("a\n```\nx\n```\n") == pytest.approx(10 / 12)
    assert code_share("é\n\n\tx") == pytest.approx(2 / 5)
    assert code_share("```\nx\n```") == 1.0
    assert code_share("prose") == code_share("") == 0.0


@pytest.mark.parametrize(
    "text",
    ["- + " * 125_000, "- - " * 125_000 + "x", "> " * 250_000, "\t" * 500_000 + "x", "```" + "`a" * 250_000,
     ("> " * 500 + "- a\n") * 500],
    ids=["lists", "rule", "quotations", "tabs", "backticks", "quoted lists"],
)  # fmt: skip
def test_a_text_made_to_be_slow_is_read_within_a_second(text: str) -> None:
    begun = time.process_time()
    code_chars(text + "\n```\n")
    assert time.process_time() - begun < 1.0  # as measured, 0.05 s
