"""The paper's suite in the words of lm-eval: which of its tasks, with how many shots, and which number is read off.

Ivison et al. 2024 (arXiv 2406.09279); settings as its evaluation code had them (allenai/open-instruct at 0d0e8a44).
What another tool measures, or lm-eval in another way, says so: such a number is no reproduction of the paper's.
"""

from dataclasses import dataclass
from typing import Final

from tasks.errors import RecipeError

WHOLE: Final = "paper"  # as an entry of evaluate.benchmarks.tasks: everything here that lm-eval can do


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `task` null: lm-eval has none like it, and `note` says what to do."""

    name: str
    category: str
    """The paper's; its table has one number for each."""
    task: str | None
    shots: int | None
    """Examples in the prompt; null = as the task has it."""
    metric: str | None
    """Key in lm-eval's results, with its filter; null = the task's first."""
    items: int | None = None
    """Drawn with Python's seed 42 from each task of the benchmark; null = all."""
    same: bool = True
    """Whether the number is measured as the paper's is, as far as is known."""
    runs_code: bool = False
    """Whether what the model writes is executed."""
    note: str = ""
    tool: bool = False
    """Whether a tool of its own measures it (tasks/alpaca_eval.py), and not lm-eval."""


SUITE: Final = (
    Benchmark("mmlu", "factuality", "mmlu", 0, "acc,none", note="the paper's code ran it with 0 and with 5 shots"),
    Benchmark("mmlu_5", "factuality", "mmlu", 5, "acc,none", same=False, note="the same with 5 shots"),
    Benchmark("gsm8k", "reasoning", "gsm8k_cot", 8, "exact_match,flexible-extract", items=200),
    Benchmark("bbh", "reasoning", "bbh_cot_fewshot", 3, "exact_match,get-answer", items=40),
    Benchmark(
        "humaneval_plus", "coding", "humaneval_plus", None, "pass@1,create_test", runs_code=True, same=False,
        note="one greedy answer; the paper's code drew 20 at temperature 0.1",
    ),
    Benchmark(
        "mbpp_plus", "coding", "mbpp_plus_instruct", None, "pass_at_1,extract_code", runs_code=True, same=False,
        note="one greedy answer; the paper's code drew 20 at temperature 0.1, from row 100 on",
    ),
    Benchmark(
        "truthfulqa", "truthfulness", "truthfulqa_mc2", 0, "acc,none", same=False,
        note="multiple choice; the paper has two judges of 7B read free answers",
    ),
    Benchmark(
        "toxigen", "safety", "toxigen", 0, "acc,none", same=False,
        note="whether the model recognises toxic text; the paper has a classifier read what the model writes",
    ),
    Benchmark("xstest", "safety", None, None, None, note="lm-eval has no such task, and GPT-4 labels the refusals"),
    Benchmark("ifeval", "instruction following", "ifeval", 0, "prompt_level_loose_acc,none"),
    Benchmark(
        "alpaca_eval", "instruction following", None, None, None, same=False, tool=True,
        note="by its own tool, with the annotator that the recipe names; the paper's number is of version 1 and 2",
    ),
)  # fmt: skip

CATEGORIES: Final = tuple(dict.fromkeys(one.category for one in SUITE))

# Percent, in the order of CATEGORIES and then their mean; RECIPE's rows, from the paper's Tables 1 and 2.
PUBLISHED: Final = {
    "Tulu 2 13B SFT, the start": (55.4, 47.8, 45.1, 56.6, 91.8, 44.2, 56.8),
    "StackExchange 60k DPO, the published model": (55.3, 47.8, 42.4, 56.2, 92.0, 46.7, 56.7),
}
PUBLISHED_START: Final = "allenai/tulu-2-13b"


def benchmarks(named: list[str]) -> list[Benchmark]:
    """What the entries of `evaluate.benchmarks.tasks` mean, each once: the suite's, and any other as lm-eval knows it.

    What a tool of its own measures has no `task`. Raises RecipeError for what cannot be done here.
    """
    known = {one.name: one for one in SUITE}
    found: dict[str, Benchmark] = {}
    for name in named:
        if name == WHOLE:
            found |= {one.name: one for one in SUITE if one.task is not None}
            continue
        one = known.get(name) or Benchmark(name, "other", name, None, None)
        if one.task is None and not one.tool:
            raise RecipeError(f"evaluate.benchmarks.tasks: {name} cannot be run here: {one.note}")
        found[name] = one
    return list(found.values())


def suite_table() -> str:
    """The suite as a Markdown table, for docs/evaluation.md."""
    head = ("name", "category", "lm-eval task", "shots", "metric", "items", "as in the paper")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in SUITE:
        shots = "the task's" if one.shots is None else str(one.shots)
        how = f"`{one.task}` | {shots} | `{one.metric}` | {one.items or 'all'}" if one.task else "none | | |"
        if one.tool:
            how = "none | 0 | win rate, length-controlled win rate | all"
        same = ("yes" if one.same else "no") if one.task else "no"
        lines.append(f"| `{one.name}` | {one.category} | {how} | {same}{'; ' + one.note if one.note else ''} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(suite_table(), end="")
