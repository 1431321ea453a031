"""The order of things, with stages that only note what they are given."""

from pathlib import Path
from typing import Any

from flows.plain import Steps
from flows.recipe import STAGES, load_recipe
from flows.stages import all_stages
from tasks.manifest import Manifest
from tasks.store import PART_OF, Store


def test_a_list_of_ids_that_is_edited_during_a_run_is_in_the_card_as_the_pairs_were_made_with(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("beer.stackexchange.com/q/1\n")
    recipe = load_recipe("site", [f"pair.exclude={ids}"])
    before = recipe.pair.identity()["exclude"]
    given: dict[str, tuple[Any, ...]] = {}

    def step(name: str) -> Any:
        def note(*arguments: Any) -> Any:
            given[name] = arguments
            if name == "pair":
                ids.write_text("beer.stackexchange.com/q/1\nbeer.stackexchange.com/q/2\n")
            if name == "gate":
                return arguments[1]
            made = Manifest(
                stage=name, version=0, fingerprint=name, config={}, inputs={}, files={}, counts={}, seconds=0.0,
                provenance={}, folder=tmp_path,
            )  # fmt: skip
            return [made] if name == "ingest" else made

        return note

    steps = Steps(**{name: step(name) for name in Steps.__dataclass_fields__})
    done = [stage for stage, _ in all_stages(steps, Store(tmp_path / "work"), recipe)]
    assert done[-1] == "publish"
    assert recipe.pair.identity()["exclude"] != before  # the file says something else by now
    assert given["pair"][2].identity()["exclude"] == before
    assert given["publish"][4]["pair"]["exclude"] == before


def test_every_step_is_a_stage_or_a_part_of_one_that_can_be_forced() -> None:
    steps = set(Steps.__dataclass_fields__) - {"gate"}
    assert {PART_OF.get(step, step) for step in steps} == set(STAGES)
