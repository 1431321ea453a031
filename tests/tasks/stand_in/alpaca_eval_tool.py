"""Stands in for the command `alpaca_eval` 0.6.6: the same arguments, requests and files, without its packages.

Made from what the real one wrote against a stand-in endpoint: one chat completion a pair, whose first token's odds are
the preference; annotations are cached by their texts, and one that is in the cache is not asked again.
"""

import csv
import json
import math
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

COLUMNS = ["", "win_rate", "standard_error", "mode", "avg_length", "n_wins", "n_wins_base", "n_draws", "n_total",
           "discrete_win_rate"]  # fmt: skip


def ask(pair: dict[str, Any]) -> float | None:
    """1 = the first, 2 = the second answer; None where the reply has neither token."""
    body = json.dumps({
        "model": "gpt-4-1106-preview", "messages": [{"role": "user", "content": json.dumps(pair)}], "max_tokens": 1,
        "logprobs": True, "top_logprobs": 5,
    })  # fmt: skip
    request = urllib.request.Request(
        os.environ["OPENAI_API_BASE"] + "/chat/completions", data=body.encode(),
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request) as reply:
            said = json.load(reply)
    except urllib.error.HTTPError as error:
        sys.exit(f"Traceback (most recent call last):\nopenai.AuthenticationError: Error code: {error.code} - no")
    except OSError:
        sys.exit("Traceback (most recent call last):\nopenai.APIConnectionError: Connection error.")
    tops = {
        one["token"]: math.exp(one["logprob"]) for one in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    }
    both = tops.get("m", 0.0) + tops.get("M", 0.0)
    return 1 + tops.get("M", 0.0) / both if both else None


def main() -> None:
    """Annotate and write leaderboard.csv and annotations.json."""
    names, values = sys.argv[1::2], sys.argv[2::2]
    given = {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
    outputs, reference = (json.loads(Path(given[f"{one}_outputs"]).read_text()) for one in ("model", "reference"))
    cache_file = Path(given["caching_path"])
    cache: dict[str, float | None] = json.loads(cache_file.read_text()) if cache_file.exists() else {}
    annotations = []
    for second, first in zip(outputs, reference, strict=True):
        pair = {"instruction": first["instruction"], "output_1": first["output"], "output_2": second["output"]}
        key = json.dumps(pair)
        if cache.get(key) is None:
            cache[key] = ask(pair)
            cache_file.write_text(json.dumps(cache))
        annotations.append(
            pair | {"generator_1": first["generator"], "generator_2": second["generator"], "preference": cache[key],
                    "annotator": Path(given["annotators_config"]).name, "preference_version": "alpaca_eval==0.6.6"}
        )  # fmt: skip
    worth = [one["preference"] - 1 for one in annotations if one["preference"] is not None]
    mean = sum(worth) / len(worth) if worth else math.nan
    spread = math.sqrt(sum((one - mean) ** 2 for one in worth) / (len(worth) - 1) / len(worth)) if worth else math.nan
    row: list[Any] = [outputs[0]["generator"], 100 * mean, 100 * spread, "community",
                      sum(len(one["output"]) for one in outputs) // len(outputs), sum(one > 0.5 for one in worth),
                      sum(one < 0.5 for one in worth), sum(one == 0.5 for one in worth), len(worth), 0.0]  # fmt: skip
    columns = list(COLUMNS)
    if given.get("fn_metric") != "get_winrate":
        assert given["metric_kwargs"] == "{'save_weights_dir': None}"
        columns += ["length_controlled_winrate", "lc_standard_error"]
        row += [100 * mean - 5, 1.5]
    folder = Path(given["output_path"])
    if "/" not in given["annotators_config"]:
        folder /= given["annotators_config"]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "leaderboard.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, row])
    (folder / "annotations.json").write_text(json.dumps(annotations, indent=2))


if __name__ == "__main__":
    main()
