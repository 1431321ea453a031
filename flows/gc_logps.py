"""Which kept log-probs (tasks/scores/logp_store.py) the kept runs can use, so that `prefstack gc` removes the others.

A folder of log-probs is named for the bytes of a model and for how they were computed. A run can use those of every
model that it refers to, start or tuned, computed as its recipe says.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from flows.recipe import load_recipe
from tasks.errors import PrefstackError
from tasks.manifest import Manifest
from tasks.scores.logp_space import space
from tasks.scores.logp_store import LogpStore


def usable_logps(
    work_dir: Path, runs: Iterable[Path], wanted: Iterable[str], say: Callable[[str], None]
) -> set[str] | None:
    """Names of the folders of log-probs that `runs` can use, which refer to the stage folders `wanted`.

    None where that cannot be said: a start model is not there (when it is made again, it has the bytes that it had, and
    finds its log-probs), or, which `say` is told, a recipe or a model's config.json cannot be read. A tuned model that
    is yet to be trained has none.
    """
    names: set[str] = set()
    try:
        trains = [load_recipe(str(run / "recipe.yaml")).train for run in runs]
        for name in sorted(wanted):
            if not name.startswith(("model-", "train-")):
                continue
            model = Manifest.read(work_dir / "store" / name)
            if model is not None:
                names |= {
                    LogpStore.of(work_dir, space(model, train, weight)).folder.name
                    for train in trains for weight in (1.0, train.tail_weight)  # held-out pairs', training pairs'
                }  # fmt: skip
            elif name.startswith("model-"):
                return None
    except (PrefstackError, OSError) as error:
        say(f"all log-probs are kept, as it cannot be said which a run can use: {error}")
        return None
    return names
