"""The model card: README.md of the model folder, in the form that hubs read (YAML, then Markdown).

in   Story (tasks/reports/story.py)
out  text; every name from outside is escaped
"""

from typing import Any, Final

import yaml

from tasks.evaluation.rewards import FORMULAS
from tasks.evaluation.verdict import findings, waived, waived_checks
from tasks.pairing.licences import hub_licenses
from tasks.publication.hyperparameters import hyperparameters
from tasks.publication.model_index import index_results
from tasks.reports.escaping import as_markdown
from tasks.reports.figures import (
    NOTHING,
    accuracy_table,
    further_numbers,
    interval,
    markdown_table,
    number,
    percent,
    words,
)
from tasks.reports.further_tables import FurtherTable, further_tables
from tasks.reports.story import Source, Story, Told
from tasks.tokens.template import ASSISTANT, USER

PICTURE: Final = "accuracy.png"


def model_card(story: Story, *, picture: bool) -> str:
    """The whole README.md; `picture` says whether the file PICTURE lies beside it."""
    parts = [
        f"---\n{_metadata(story)}---\n",
        f"# {as_markdown(story.name)}\n",
        _introduction(story),
        "## Results\n\n" + _results(story, picture),
        *_further(story),
        "## How to use\n\n" + _usage(story),
        "## Training\n\n" + hyperparameters(story),
        "## Data\n\n" + _data(story),
        "## Limitations\n\n" + _limitations(story),
        "## Licence and attribution\n\n" + _licence(story),
        "## Lineage\n\n" + _lineage(story),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _metadata(story: Story) -> str:
    found: dict[str, Any] = {
        "license": story.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
    }
    if story.base_is_on_hub:
        found["base_model"] = story.base
        found["base_model_relation"] = "finetune"
    hubs = sorted({str(source.facts["hub"]) for source in story.sources if source.facts.get("hub")})
    if hubs:
        found["datasets"] = hubs
    # No key that hubs know, and no licence of the weights: that of the texts, which stands beside it.
    found["training_data_license"] = hub_licenses(name for name, _, _ in story.summary.licenses)
    found["tags"] = ["dpo", "preference-tuning", "stack-exchange", "prefstack"]
    if story.evaluated:
        found["model-index"] = [{"name": story.name, "results": index_results(story)}]
    dumped: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000)
    return dumped


def _introduction(story: Story) -> str:
    sites = [site for site, _ in story.summary.sites if site != "unknown"]
    where = as_markdown(sites[0]) if len(sites) == 1 else f"{len(sites)} sites" if sites else "published pairs"
    said = (
        f"{as_markdown(story.base)}, tuned with DPO on {number(story.summary.pairs)} pairs of answers to "
        f"{number(story.summary.questions)} Stack Exchange questions ({where}): of two answers to one question, the "
        "one that people voted up is chosen. Made with prefstack after the recipe of Tulu V2.5 DPO 13B, StackExchange "
        "60k; the files beside this one tell which post every pair came from.\n"
    )
    return said + ("\n" + _verdict(story) + "\n" if story.evaluated else "")


def _verdict(story: Story) -> str:
    found = story.metrics
    return (
        f"**On {number(found['pairs'])} held-out pairs it prefers the chosen answer in {percent(found['accuracy'])} "
        f"(95 % interval {interval(found['accuracy_low'], found['accuracy_high'])}); always picking the longer answer "
        f"gets {percent(found['length_baseline_accuracy'])}.**"
    )


def _results(story: Story, picture: bool) -> str:
    waivers = [*filter(None, [waived(story.waiver)]), *waived_checks(story.recipe)]
    before = "".join(f"**{as_markdown(waiver)}**\n\n" for waiver in waivers)
    if not story.evaluated:
        return before + f"Not evaluated: {as_markdown(str(story.metrics.get('reason')))}.\n"
    found = story.metrics
    said = before + (f"![What decides, and how often it is right]({PICTURE})\n\n" if picture else "")
    said += (
        f"{number(found['pairs'])} held-out pairs of {number(found['questions'])} questions that training never saw. "
        f"A pair is right when its margin is above 0, that is {FORMULAS[found['reward']]}; a tie is wrong. A rule that "
        "cannot tell counts one half. Intervals are 95 % and drawn over questions, not pairs.\n\n"
    )
    said += markdown_table(("what decides", "accuracy", "95 % interval"), accuracy_table(found)) + "\n"
    said += markdown_table(("further numbers", "value", "95 % interval or remark"), further_numbers(found))
    notes = [*findings(found), *found["warnings"]]
    if notes:
        said += "\n" + "".join(f"- **Note:** {as_markdown(note)}\n" for note in notes)
    return said


def _further(story: Story) -> list[str]:
    """A section for each evaluation beside that on held-out pairs."""
    return [f"## {table.title}\n\n{further_markdown(table)}" for table in further_tables(story.metrics)]


def further_markdown(table: FurtherTable) -> str:
    """One evaluation as Markdown, without its title."""
    said = as_markdown(table.remark) + "\n"
    for head, rows in table.parts:
        said += "\n" + markdown_table(tuple(head), [tuple(as_markdown(cell) for cell in row) for row in rows])
    if table.warnings:
        said += "\n" + "".join(f"- **Note:** {as_markdown(warning)}\n" for warning in table.warnings)
    return said


def _usage(story: Story) -> str:
    return f"""Prompts have the Tulu form; the newline after `<|assistant|>` matters. The chat template writes it:

```
{USER}Your message here!
{ASSISTANT}```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "{story.name}"
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(folder)
messages = [{{"role": "user", "content": "Why does my bread not rise?"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**prompt, max_new_tokens=256)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""


def _data(story: Story) -> str:
    said = funnel_table(story)
    said += "\n" + markdown_table(
        ("source", "counts", "checksum"), [source_row(source) for source in story.sources], numbers=False
    )
    return said + (
        "\nThe data card, `data_card.md` beside this folder, has lengths, votes, years, licences and examples; "
        "`train_pair_ids.txt` names every training pair.\n"
    )


def funnel_table(story: Told) -> str:
    """From posts to training pairs, as a Markdown table."""
    rows = [
        (step.label, number(step.left),
         ", ".join(f"{as_markdown(words(reason))} {number(count)}" for reason, count in step.lost.items()) or NOTHING)
        for step in story.steps
    ]  # fmt: skip
    return markdown_table(("step", "left", "left out on the way"), rows)


def source_row(source: Source) -> tuple[str, str, str]:
    """Name, counts and checksum of a source, as cells of a Markdown table."""
    kept = {name: count for name, count in source.counts.items() if "." not in name and count}
    counts = ", ".join(f"{number(count)} {as_markdown(name)}" for name, count in kept.items())
    digest = source.facts.get("sha256") or source.facts.get("digest") or source.facts.get("revision")
    return as_markdown(source.name), counts or NOTHING, f"`{as_markdown(str(digest))}`" if digest else NOTHING


def _limitations(story: Story) -> str:
    shares = story.summary.shares
    years = [year for year, _ in story.summary.years]
    span = f" The questions date from {years[0]} to {years[-1]}." if years else ""
    said = [
        "Votes are not truth: early answers, short jokes and well-known authors get more of them, and an answer that "
        "was right once may be wrong today." + span,
        f"The chosen answer is the longer one in {percent(shares['longer_tokens'])} of the training pairs"
        + _habit(shares["longer_tokens"]),
        "The accuracy says how the model ranks two given answers by its log-probs. It does not say how good the text "
        "is that it writes.",
        "Nothing was done for safety: no answer was refused, filtered or red-teamed. The start model's faults remain.",
    ]
    cut = max(shares["chosen_cut"] or 0.0, shares["rejected_cut"] or 0.0)
    if cut > 0:
        said.append(f"Up to {percent(cut)} of the answers on one side were cut at the length limit and seen in part.")
    return "".join(f"- {line}\n" for line in said)


def _habit(longer: float | None) -> str:
    """What a model may learn from the share of pairs whose chosen answer is the longer one."""
    if longer is None or 0.45 <= longer <= 0.55:
        return "."
    habit = "length" if longer > 0.5 else "brevity"
    return f", so the model may have learned to prefer {habit}; compare the accuracy at equal length above."


def _licence(story: Story) -> str:
    posts = story.posts.height
    base = "states no licence" if story.base_license is None else f"states {as_markdown(story.base_license)}"
    named = ", ".join(f"{number(count)} {as_markdown(name)} ({basis})" for name, basis, count in story.summary.licenses)
    return (
        f"The weights are under **{as_markdown(story.license)}**, within the terms of the start model, "
        f"{as_markdown(story.base)}, whose card {base}. The training "
        "text is user content of the Stack Exchange network under **CC BY-SA**; it is not part of this folder. Whoever "
        "passes the text on names the network, the post, its author and the licence, and keeps the licence.\n\n"
        f"`attribution.csv` names all {number(posts)} posts: link, author, licence and whether the licence was stated "
        f"on the post or worked out from its dates. Posts by licence: {named}.\n"
    )


def _lineage(story: Story) -> str:
    weights = story.lineage["weights"]["digest"]
    stages = [
        (stage, f"`{facts['fingerprint']}`", f"`{facts['content'][:16]}`")
        for stage, facts in story.lineage["stages"].items()
    ]
    revision = f" at revision `{as_markdown(story.base_revision)}`" if story.base_revision else ""
    return (
        f"Start model: {as_markdown(story.base)}{revision}. Digest of the weights' files: `{weights}`. `lineage.json` "
        "has every stage with its settings, counts and inputs, from the checksum of each source on.\n\n"
        + markdown_table(("stage", "fingerprint", "content"), stages, numbers=False)
    )
