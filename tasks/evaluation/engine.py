"""What writes the answers of a generation: vLLM where it is installed and has a device, else transformers."""

from importlib.util import find_spec
from typing import Final, Literal

from tasks.errors import RecipeError
from training.jobs import Engine

Wanted = Literal["auto", "transformers", "vllm"]

COOLEST, HOTTEST = 0.01, 2.0  # vLLM refuses a temperature above, and takes COOLEST for one below
ENGINES: Final[tuple[Engine, ...]] = ("vllm", "transformers")


def vllm_can_sample(temperature: float) -> bool:
    """Whether vLLM draws at `temperature` and no other."""
    return COOLEST <= temperature <= HOTTEST


def vllm_installed() -> bool:
    """Whether there is a vllm to import; a folder that only has the name is none."""
    found = find_spec("vllm")
    return found is not None and found.origin is not None


def engine_here(wanted: Wanted, temperature: float) -> Engine:
    """The engine that `wanted` means on this machine."""
    if wanted != "auto":
        return wanted
    if not vllm_installed() or not vllm_can_sample(temperature):
        return "transformers"
    import torch

    return "vllm" if torch.cuda.is_available() else "transformers"


def refuse_missing_engine(wanted: Wanted) -> None:
    """RecipeError where vllm is asked for outright and not installed."""
    if wanted == "vllm" and not vllm_installed():
        raise RecipeError(
            "evaluate.generate.engine is vllm, which is not installed here: pip install vllm, or set it to auto"
        )
