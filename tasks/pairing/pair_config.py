"""What the `pair` section of a recipe may say: the rule, the cap, and the switches with the order they are asked in.

    considered -> ties -> excluded, min_gap, closed, community, later_wins -> cap -> candidates
               -> empty or unconvertible texts -> masked -> prompt and answer lengths, ratio, code, language -> pairs

What numbers decide comes before the draws, so that these are filled all the same; what texts decide comes after, since
texts are made for candidates alone. All switches are off by default: the recipe that is reproduced has none.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from tasks.config import StageConfig
from tasks.pairing.excluded import Excluded, read_excluded
from tasks.pairing.number_switches import Switches
from tasks.pairing.text_switches import Limits

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class PairConfig(StageConfig):
    """Which answers make a pair."""

    rule: Literal["pm", "votes"] = "pm"
    """pm: round(log2(1 + votes)), +1 if accepted, below zero votes -1 (Askell et al. 2021); votes: the raw score."""
    max_pairs_per_question: PositiveInt | None = 10
    """Keeps one busy question from filling the sample; null = no cap."""
    include_title: bool = False
    """Put the question's title before its body in the prompt; the recipe uses the body alone."""
    min_gap: int = Field(0, ge=0, lt=2**63)
    """Least difference of rank between chosen and rejected, in the rule's units; a tie is never a pair."""
    candidates: PositiveInt | None = None
    """Pairs drawn by keyed rank before any text is converted; null = every pair is a candidate."""
    exclude: list[str] | str = Field(default_factory=list)
    """Takedown: posts and users whose pairs are left out, such as beer.stackexchange.com/q/1, .../a/4, .../users/9; or
    the path of a text file with one a line."""
    later_wins: bool = False
    """Keep a pair only if the chosen answer was posted after the rejected one, so that votes cannot come of having been
    read for longer (SHP's rule); a pair without both dates is dropped."""
    drop_closed: bool = False
    """Leave out questions that were closed, where the source tells."""
    drop_community: bool = False
    """Leave out questions and answers that belong to the community (wiki posts), where the source tells."""
    min_prompt_chars: PositiveInt | None = None
    """Least length of the prompt, in characters of Markdown; null = any."""
    max_prompt_chars: PositiveInt | None = None
    """Greatest length of the prompt, in characters of Markdown; null = any."""
    min_answer_chars: PositiveInt | None = None
    """Least length of the shorter answer, in characters of Markdown; null = any."""
    max_answer_chars: PositiveInt | None = None
    """Greatest length of the longer answer, in characters of Markdown; null = any."""
    max_length_ratio: Annotated[float, Field(ge=1.0)] | None = None
    """Most times that the longer answer may be as long as the shorter one, in characters; null = any."""
    max_code_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Greatest share of the characters of prompt or answer that may stand in code blocks, 0 to 1; null = any."""
    languages: list[Language] = Field(default_factory=list)
    """ISO 639-1 codes such as en: a pair is dropped if one of its texts is surely in another; too short or too mixed to
    tell stays. [] = any."""
    mask_personal: bool = False
    """Put EMAIL_ADDRESS, PHONE_NUMBER and IP_ADDRESS in place of such in prompts and answers, code included; what is
    reserved for examples stays."""

    @field_validator("exclude")
    @classmethod
    def _ids(cls, given: list[str] | str) -> list[str] | str:
        if not isinstance(given, str):
            read_excluded(given)
        return given

    @model_validator(mode="after")
    def _ordered(self) -> "PairConfig":
        for side in ("prompt", "answer"):
            least, most = getattr(self, f"min_{side}_chars"), getattr(self, f"max_{side}_chars")
            if least is not None and most is not None and least > most:
                raise ValueError(f"pair.min_{side}_chars is {least} and max_{side}_chars is {most}: no text is both")
        return self

    def with_list_read(self) -> "PairConfig":
        """The same with the ids in place of the file that they stand in; InputError where it cannot be read."""
        return self.model_copy(update={"exclude": sorted(read_excluded(self.exclude).names)})

    def identity(self) -> dict[str, Any]:
        """As of any stage, but the ids to leave out by their digest, wherever they were written."""
        return super().identity() | {
            "exclude": read_excluded(self.exclude).digest, "languages": sorted(set(self.languages)),
        }  # fmt: skip

    def switches(self, excluded: Excluded) -> Switches:
        """The switches that numbers decide."""
        return Switches(self.min_gap, self.later_wins, self.drop_closed, self.drop_community, excluded)

    def limits(self) -> Limits:
        """The switches that texts decide."""
        return Limits(
            self.min_prompt_chars, self.max_prompt_chars, self.min_answer_chars, self.max_answer_chars,
            self.max_length_ratio, self.max_code_share, tuple(self.languages),
        )  # fmt: skip
