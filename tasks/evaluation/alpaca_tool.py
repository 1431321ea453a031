"""The tool `alpaca_eval` (tatsu-lab, 0.6), run as a process and read: its command line, its two result files.

in   model outputs and reference outputs, JSON lists of {"instruction", "output", "generator"}
out  leaderboard.csv   one row: win_rate, standard_error, length_controlled_winrate, lc_standard_error, in percent
     annotations.json  a list of {"instruction", "preference", ...}: 1 = the reference, 2 = the model, odds in between

The key stands in the process's environment and nowhere else. Annotations are cached where an interrupted run finds
them again, and not in the tool's own folder, where it would put them.
"""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from tasks.credentials import credential
from tasks.errors import PrefstackError, RecipeError, StageFailed, Surroundings, Transient
from tasks.store import Workspace
from training.rank import LAUNCHER_PID
from training.withheld import without_credentials

_KEY: Final = "evaluate.benchmarks.alpaca_eval"
_REFUSES: Final = re.compile(r"openai\.(AuthenticationError|PermissionDeniedError|NotFoundError|BadRequestError)")
_AWAY: Final = re.compile(r"openai\.(API\w*Error|RateLimitError|InternalServerError)|LocalEntryNotFoundError|HTTPError")

# Dies with us, however we die, as the ranks do: the signal outlives the exec.
_TRAMPOLINE: Final = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); from training.rank import die_with_parent; die_with_parent(); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class Rates(NamedTuple):
    """Shares in [0, 1] with their standard errors; None where the tool does not know them."""

    win_rate: float
    error: float | None
    controlled: float | None
    controlled_error: float | None


def tool(command: str) -> str:
    """Path of the tool; RecipeError where it is not installed. One beside our own Python counts as on the path."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(command) or shutil.which(command, path=beside)
    if found is None:
        raise RecipeError(
            f"{_KEY} needs the tool alpaca_eval, and there is no {command!r} here: pip install alpaca_eval, into an "
            f"environment of its own if need be, and name it as {_KEY}.command"
        )
    return found


def tool_key(key_env: str | None) -> str | None:
    """The endpoint's key out of the environment; Surroundings where it is named and not set."""
    if key_env is None:
        return None
    key = credential(key_env)
    if key is None:
        raise Surroundings(f"{_KEY}: key_env names {key_env}, which is not set")
    return key


def arguments(
    folder: Path, outputs: Path, reference: Path, *, annotator: str, controlled: bool
) -> list[str]:  # fmt: skip
    """The command line behind the tool's name."""
    # Leaderboards of others are neither wanted nor written to, nor the weights of the tool's own package.
    given = [
        "--model_outputs", str(outputs), "--reference_outputs", str(reference), "--annotators_config", annotator,
        "--output_path", str(folder / "results"), "--caching_path", str(folder / "cache.json"),
        "--precomputed_leaderboard", "None", "--is_cache_leaderboard", "False",
    ]  # fmt: skip
    if controlled:
        return [*given, "--metric_kwargs", "{'save_weights_dir': None}"]
    return [*given, "--fn_metric", "get_winrate", "--sort_by", "win_rate"]


def annotate(
    work: Workspace, outputs: Path, reference: Path, *, command: str, annotator: str, url: str | None,
    key_env: str | None, controlled: bool,
) -> Path:  # fmt: skip
    """Run the tool; the folder of its results.

    Raises Surroundings where the endpoint refuses, Transient where it or the hub is away, StageFailed for the rest.
    """
    path, key = tool(command), tool_key(key_env)
    folder = (work.partial / "alpaca_eval").absolute()
    (folder / "results").mkdir(parents=True, exist_ok=True)
    log = folder / "alpaca_eval.log"
    environment = without_credentials(os.environ) | {
        "OPENAI_API_KEY": key or "none",
        "OPENAI_CLIENT_CONFIG_PATH": str(folder / "none.yaml"),  # else the tool may ask another endpoint
        "IS_ALPACA_EVAL_2": "True",
        LAUNCHER_PID: str(os.getpid()),
    }
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_KEYS"):  # the recipe says who is asked, and alone
        environment.pop(name, None)
    if url is not None:
        environment["OPENAI_API_BASE"] = url
    given = arguments(folder, outputs.absolute(), reference.absolute(), annotator=annotator, controlled=controlled)
    work.message(f"asking {annotator} by {path}")
    with open(log, "ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-c", _TRAMPOLINE, str(Path(__file__).parents[2]), path, *given],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder,
        )  # fmt: skip
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if status != 0:
        raise _explained(status, log, begin, url)
    found = sorted((folder / "results").rglob("leaderboard.csv"))
    if len(found) != 1 or not (found[0].parent / "annotations.json").is_file():
        raise StageFailed(f"alpaca_eval: it ended well and left no results; see {log}")
    return found[0].parent


def read_leaderboard(path: Path) -> Rates:
    """The rates of the one model in it; StageFailed where it is not as this version of the tool writes it."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        rate = float(row["win_rate"]) / 100
        others = [
            _share(row.get(name)) for name in ("standard_error", "length_controlled_winrate", "lc_standard_error")
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"alpaca_eval: {path} is no leaderboard of one model: {error!r}") from error
    if not 0.0 <= rate <= 1.0:
        raise StageFailed(
            f"alpaca_eval: the win rate in {path} is {row['win_rate']}: no reply of the annotator was read"
        )
    return Rates(rate, *others)


def read_annotations(path: Path) -> tuple[dict[str, float], str]:
    """What each instruction got, in [0, 1], and the tool's version.

    An instruction whose reply could not be read is not among them.
    """
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        judged = {
            one["instruction"]: _worth(float(one["preference"])) for one in found if one.get("preference") is not None
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageFailed(f"alpaca_eval: {path} has no annotations: {error!r}") from error
    version = next((str(one["preference_version"]) for one in found if one.get("preference_version")), "unknown")
    return judged, version


def _worth(preference: float) -> float:
    """1 = the reference's answer, 2 = the model's, 0 and 1.5 = a draw -> 0, 1 and 0.5."""
    return 0.5 if preference == 0.0 else preference - 1.0


def _share(percent: str | None) -> float | None:
    value = float(percent) if percent else math.nan
    return None if math.isnan(value) else value / 100


def _explained(status: int, log: Path, begin: int, url: str | None) -> PrefstackError:
    """The failure by whose move is next, from the end of what the tool has said since byte `begin` of its log."""
    with open(log, "rb") as file:
        file.seek(max(begin, log.stat().st_size - 20_000))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    last = " ".join((lines or ["it said nothing"])[-1].split())[:300]
    said = f"alpaca_eval: the tool ended with status {status}: {last}; see {log}"
    if _REFUSES.search(last):
        return Surroundings(f"{said}; look at {_KEY}.url ({url or 'that of OpenAI'}), annotator and key_env")
    if _AWAY.search(last):
        return Transient(f"{said}; what it has annotated is kept, and the next run asks for the rest")
    return StageFailed(said)
