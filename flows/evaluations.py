"""What a recipe asks of the models beside the ranking of held-out pairs: each a stage, and one that puts them together.

in   the manifests of evaluate and of what came before it
out  the manifest that stands for evaluate from here on, and those of its parts; `ranking` is evaluate's own
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.manifest import Manifest
from tasks.store import Store

if TYPE_CHECKING:
    from flows.recipe import Recipe
    from flows.stages import Steps


def further_evaluations(
    steps: "Steps", store: Store, recipe: "Recipe", made: Mapping[str, Manifest], judged: Manifest
) -> tuple[Manifest, dict[str, Manifest]]:
    """`made` has `model` and `train`, and of the pairs to judge by `tokenize` and, as `held_out`, their texts.

    Where the recipe asks for nothing, `judged` as it is.
    """
    asked = recipe.evaluate
    parts: dict[str, Manifest] = {}
    if asked.generate is not None:
        parts["generate"] = steps.generate(
            store, made["train"], made["model"], made["tokenize"], asked.generate, recipe.train, recipe.seed,
            asked.bootstrap,
        )  # fmt: skip
        if asked.generate.judge is not None:
            parts["judge"] = steps.judge(
                store, parts["generate"], made["held_out"], asked.generate.judge, recipe.seed, asked.bootstrap
            )
    if asked.benchmarks is not None:
        judge = asked.generate.judge if asked.generate is not None else None
        withheld = (judge.key_env,) if judge is not None and judge.key_env else ()
        for side, subject in (("start", made["model"]), ("tuned", made["train"])):
            parts[f"benchmark_{side}"] = steps.benchmark(store, subject, asked.benchmarks, recipe.train, withheld)
    if not parts:
        return judged, {}
    whole = steps.results(store, judged, parts, made["model"], made["train"])
    return whole, {"ranking": judged, **parts}
