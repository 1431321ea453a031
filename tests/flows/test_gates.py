"""`gates.waive`: named checks may fail, for a reason; what is not known is refused with what there is."""

from pathlib import Path

import pytest

from data_checks import sampled
from flows.plain import plain_steps
from flows.recipe import load_recipe
from flows.runs import open_run
from flows.show import run_text
from flows.stages import data_stages, described
from tasks.errors import GateFailed, RecipeError
from tasks.evaluation.verdict import waived_checks
from tasks.store import Store
from tests.tasks.test_pair import answer, question, write_dump

REASON = "cut by hand"
WAIVE = f"{{ingested.orphan: {REASON}}}"


@pytest.mark.parametrize(
    ("waive", "said"),
    [
        (
            "{ingestd.orphan: x}",
            r"no gate 'ingestd'; did you mean 'ingested'\?; gates: ingested, paired, ",
        ),
        (
            "{ingested.orphans: x}",
            r"gate ingested has no critical check 'orphans'; did you mean 'orphan'\?; it has ",
        ),
        ("{ingested: x}", "gate ingested has no critical check ''"),
        ("{deduped.both_accepted: x}", "has no critical check 'both_accepted'"),  # a warning stops nothing
        ("{ingested.orphan: '  '}", "at least 1 character"),
        ("{ingested.orphan: null}", "valid string"),
        ("[ingested.orphan]", "valid dictionary"),
    ],
)
def test_what_cannot_be_waived_is_a_wrong_recipe(waive: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        load_recipe("demo", [f"gates.waive={waive}"])
    assert "gates.waive" in str(refused.value) and refused.value.status == 2


def test_a_gate_stops_the_run_until_its_check_is_waived_and_no_stage_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pair less than there should be, as a mistake in `sample` would make it.
    check = sampled.check
    monkeypatch.setattr(sampled, "check", lambda size, held_out: check(size, held_out + 1))
    dump = write_dump(tmp_path / "dumps" / "bread.stackexchange.com", [question(1), answer(2, 1, 9), answer(3, 1, 0)])
    settings = [f"ingest.sources=[{dump}]", "sample={size: null, held_out: 0}", f"work_dir={tmp_path / 'work'}"]
    waive = "gates.waive={sampled.expect_table_row_count_to_equal: one is enough}"
    plain, waiving = load_recipe("demo", settings), load_recipe("demo", [*settings, waive])
    store = Store(tmp_path / "work")
    with pytest.raises(GateFailed, match=r"saw 0.*\(sampled\.expect_table_row_count_to_equal\)"):
        list(data_stages(plain_steps(), store, plain))
    made = dict(data_stages(plain_steps(), store, waiving))
    assert all(manifests[0].reused for manifests in made.values())
    with pytest.raises(GateFailed):
        list(data_stages(plain_steps(), store, plain))


def test_a_waiver_stands_in_the_summary_and_in_the_recipe_of_the_card(tmp_path: Path) -> None:
    plain, waiving = load_recipe("demo"), load_recipe("demo", [f"gates.waive={WAIVE}", f"work_dir={tmp_path}"])
    assert "gates" not in described(plain) and waived_checks(described(plain)) == []
    assert waived_checks(described(waiving)) == [
        "Made under a waiver of the check ingested.orphan: the data or the results may not meet it. Reason given: "
        "cut by hand."
    ]
    summary = open_run("one", waiving).summary
    assert summary["waived"] == {"ingested.orphan": REASON}
    assert "waived ingested.orphan: cut by hand" in run_text(summary, None)
