"""What a recipe asks of the models beside the ranking of held-out pairs: each a stage, and one that puts them together.

in   the manifests of evaluate and of what came before it
out  the manifest that stands for evaluate from here on, and those of its parts; `ranking` is evaluate's own
"""

from collections.abc import Mapping

from flows.plain import Steps
from flows.recipe import Recipe
from tasks.benchmark import asks_alpaca_eval, wanted_tasks
from tasks.manifest import Manifest
from tasks.store import Store


def further_evaluations(
    steps: Steps, store: Store, recipe: Recipe, made: Mapping[str, Manifest], judged: Manifest
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
        alpaca = asked.benchmarks.alpaca_eval if asks_alpaca_eval(asked.benchmarks) else None
        for side, subject in (("start", made["model"]), ("tuned", made["train"])):
            if wanted_tasks(asked.benchmarks):
                parts[f"benchmark_{side}"] = steps.benchmark(
                    store, subject, asked.benchmarks, recipe.train, withheld_keys(recipe)
                )
            if alpaca is not None:
                answered = steps.outputs(store, subject, alpaca, recipe.train)
                parts |= {
                    f"outputs_{side}": answered, f"alpaca_eval_{side}": steps.alpaca_eval(store, answered, alpaca)
                }  # fmt: skip
    if not parts:
        return judged, {}
    whole = steps.results(store, judged, parts, made["model"], made["train"])
    return whole, {"ranking": judged, **parts}


def withheld_keys(recipe: Recipe) -> tuple[str, ...]:
    """Variables that the recipe says hold a key: a process that runs what a model writes does not see them."""
    asked = recipe.evaluate
    judge = asked.generate.judge if asked.generate is not None else None
    alpaca = asked.benchmarks.alpaca_eval if asked.benchmarks is not None else None
    return tuple(one.key_env for one in (judge, alpaca) if one is not None and one.key_env is not None)
