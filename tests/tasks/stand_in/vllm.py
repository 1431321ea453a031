"""A stand-in for vLLM, which needs CUDA: as strict as its interface, and it writes down what it is asked.

The greedy answer to a prompt of an even number of tokens is `7 7 </s>`, to another one 8 until it is cut; a sampled
answer begins with a token that its seed chooses. VLLM_STAND_IN names the folder of what is written down, and
VLLM_FAULT what goes wrong: `abort` or `nan`.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__version__ = "stand-in"
END = 1


@dataclass
class SamplingParams:
    """The fields of vLLM's that a generation needs; another one is a TypeError, as there."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    detokenize: bool = True
    logprobs: int | None = None


@dataclass
class Completion:
    token_ids: list[int]
    finish_reason: str
    cumulative_logprob: float | None


@dataclass
class RequestOutput:
    outputs: list[Completion]


class LLM:
    def __init__(
        self, model: str, *, skip_tokenizer_init: bool, generation_config: str, dtype: str, max_model_len: int,
        seed: int,
    ) -> None:  # fmt: skip
        assert json.loads((Path(model) / "config.json").read_text())["model_type"] == "llama"
        assert 0 <= seed < 2**32  # numpy's
        self.model, self.room = Path(model).parent.name.partition("-")[0], max_model_len
        self.settings = {"dtype": dtype, "max_model_len": max_model_len, "generation_config": generation_config}
        self.skipped = skip_tokenizer_init

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[RequestOutput]:  # fmt: skip
        rank = os.environ["RANK"]
        names = ("VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING", "CUDA_VISIBLE_DEVICES")
        seen: dict[str, Any] = {
            "model": self.model, "rank": rank, "settings": self.settings, "tqdm": use_tqdm,
            "environment": {name: os.environ[name] for name in names},
            "asked": [one["prompt_token_ids"] for one in prompts], "sampling": [asdict(one) for one in sampling_params],
        }  # fmt: skip
        place = Path(os.environ["VLLM_STAND_IN"])
        (place / f"{len(list(place.iterdir()))}-{self.model}-{rank}.json").write_text(json.dumps(seen))
        pairs = zip(prompts, sampling_params, strict=True)
        return [RequestOutput([self._answer(one["prompt_token_ids"], params)]) for one, params in pairs]

    def _answer(self, prompt: list[int], params: SamplingParams) -> Completion:
        assert len(prompt) + params.max_tokens <= self.room
        assert self.skipped and not params.detokenize and params.logprobs is not None
        assert params.ignore_eos and params.stop_token_ids == [END]
        ids = [7, 7, END] if len(prompt) % 2 == 0 else [8] * params.max_tokens
        if params.temperature:
            assert params.seed is not None and 0 <= params.seed < 2**63
            ids[0] = 2 + params.seed % 200
        fault = os.environ.get("VLLM_FAULT")
        reason = "abort" if fault == "abort" else "stop" if ids[-1] == END else "length"
        return Completion(ids, reason, math.nan if fault == "nan" else -0.5)
