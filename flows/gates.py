"""What a recipe says of the gates: which of their checks may fail, and why.

A waiver changes no result: what a gate found is stored as it is, and the run goes on where it would have stopped.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator

from data_checks import deduped, evaluated, ingested, paired, publishable, sampled, tokenized
from data_checks.check import Check

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class GatesConfig(BaseModel):
    """How the gates between the stages are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    waive: dict[str, Reason] = {}
    """Critical checks that may fail, as `GATE.CHECK: reason` (deduped.question_divided: merged by hand); each reason
    stands in the log, on the gate's page and in the model card. Part of no fingerprint but `publish`'s."""

    @field_validator("waive")
    @classmethod
    def _known(cls, waive: dict[str, str]) -> dict[str, str]:
        known = waivable() if waive else {}
        for name in waive:
            gate, _, check = name.partition(".")
            if gate not in known:
                raise ValueError(f"there is no gate {gate!r}{_near(gate, known)}; gates: {', '.join(known)}")
            if check not in known[gate]:
                raise ValueError(
                    f"gate {gate} has no critical check {check!r}{_near(check, known[gate])}; it has "
                    f"{', '.join(known[gate])}"
                )
        return waive

    def on(self, check: Check) -> Check:
        """`check` with those of its names that are waived."""
        waived = {
            name.partition(".")[2]: reason
            for name, reason in self.waive.items()
            if name.partition(".")[0] == check.name
        }
        return replace(check, waived=waived)


def waivable() -> dict[str, tuple[str, ...]]:
    """The names of each gate's critical checks; they are the same whatever sizes a recipe asks for."""
    checks = (
        ingested.check(), paired.check(), deduped.check(), sampled.check(None, 0), tokenized.check(1),
        evaluated.check(), publishable.check(),
    )  # fmt: skip
    return {check.name: check.critical for check in checks}


def _near(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
