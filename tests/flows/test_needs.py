"""What a recipe takes, worked out by hand: steps, operations, time at a stated rate, disk."""

from pathlib import Path

import pytest

from flows import needs as needs_module
from flows.needs import needs_of, needs_text
from flows.preflight import Device
from flows.recipe import load_recipe
from tasks.manifest import Manifest
from tasks.needs import CPU_RATE

RECIPE = "tulu-v2.5-13b-stackexchange-60k"
FORWARD = 2 * 12_687_769_600 * 800 + 4 * 5120 * 40 * (570**2 / 2 + 230 * 415) + 2 * 32001 * 5120 * 500


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_module, "devices", list)


def finished(stage: str, counts: dict[str, int]) -> Manifest:
    return Manifest(
        stage=stage, version=1, fingerprint="0" * 16, config={}, inputs={}, files={}, counts=counts, seconds=1.0,
        provenance={}, folder=Path("nowhere"),
    )  # fmt: skip


def test_time_is_operations_at_the_stated_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_module.os, "cpu_count", lambda: 4)
    found = needs_of(load_recipe(RECIPE), {})
    assert found["memory"]["H100"]["recompute"] is True
    seconds = found["seconds"]
    # 5,625 steps of 32 pairs: forward, backward and, on the GPU, forward again; eight ranks at 40 % of 989 TFLOP/s.
    assert seconds["H100"]["train"] == pytest.approx(4 * FORWARD * 180_000 / (8 * 0.4 * 989e12), rel=1e-4)
    assert seconds["cpu"]["train"] == pytest.approx(3 * FORWARD * 180_000 / (4 * CPU_RATE), rel=1e-4)
    assert seconds["cpu"]["reference"] == pytest.approx(FORWARD * 62_000 / (4 * CPU_RATE), rel=1e-4)


def test_lengths_of_finished_token_rows_take_the_place_of_the_usual_ones() -> None:
    rows = finished("tokenize", {"pairs": 100, "dropped.prompt_too_long": 20, "truncated": 7, "tokens": 32_000})
    found = needs_of(load_recipe(RECIPE), {"tokenize": rows})
    assert found["tokens_per_pair"] == {"mean": 400.0, "measured": True}
    capped = needs_of(load_recipe(RECIPE, ["tokenize.max_length=512"]), {})
    assert capped["tokens_per_pair"] == {"mean": pytest.approx(614.4), "measured": False}


def test_a_sample_without_a_size_is_counted_once_it_is_finished() -> None:
    recipe = load_recipe(RECIPE, ["sample.size=null"])
    assert needs_of(recipe, {})["steps"] is None and needs_of(recipe, {})["disk"] is None
    found = needs_of(recipe, {"sample": finished("sample", {"train": 1000, "held_out": 10})})
    assert found["steps"] == 3 * (1000 // 32)


def test_the_gpu_that_is_here_takes_the_place_of_an_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Device(index=0, uuid="GPU-1", name="NVIDIA A10", total=23_028, used=0, celsius=40)
    monkeypatch.setattr(needs_module, "devices", lambda: [small])
    found = needs_of(load_recipe(RECIPE), {})
    assert list(found["memory"]) == ["cpu", "NVIDIA A10"]
    assert found["memory"]["NVIDIA A10"]["reason"].endswith("train.zero_stage 3 on train.ranks 32 would fit")
    assert any("NVIDIA A10" in line and "does not fit" in line for line in needs_text(found))


def test_a_plan_names_the_hosts_memory_of_an_offloaded_optimizer() -> None:
    found = needs_of(load_recipe(RECIPE, ["train.ranks=2", "train.offload=optimizer"]), {})
    assert found["offload"] == "optimizer" and found["memory"]["H100"]["host_bytes"] == 10 * 13_015_874_560
    lines = needs_text(found)
    assert lines.count("  of the host's memory 130.2 GB a rank, 260.3 GB for all (offload)") == 1
    assert not any("(offload)" in line for line in needs_text(needs_of(load_recipe(RECIPE), {})))


def test_a_model_that_nobody_knows_is_said_to_be_unknown() -> None:
    found = needs_of(load_recipe(RECIPE, ["model=somebody/else@abc"]), {})
    assert found["parameters"] is None and found["memory"] is None
    assert needs_text(found)[1] == "memory, time and disk: the model's shape is not known before it is here"
