"""What a step's work is counted as, by hand; and that a step never waits for its device between packs."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.pairs import made_up_rows
from training import records as records_module
from training import step
from training.batch import pack_batch
from training.config import TrainConfig
from training.devices import DEVICES, device_named
from training.forward import load_model, pack_logps
from training.losses import PairLogps
from training.pack import Pack
from training.records import Records
from training.rows import TokenRow
from training.shape import ModelShape
from training.step import run_packs
from training.work import peak_of, step_flops, truncated_share

# A token costs 2 * 1 * 10 * (2 * 4 + 2 * 4 + 3 * 6) operations in the only layer, a key that is seen 4 * 4, and a
# scored position 2 * 10 * 7.
SHAPE = ModelShape(hidden=10, mlp=6, layers=1, heads=2, key_heads=2, head_size=2, vocabulary=7, tied=True)
TOKEN, KEY, SCORED = 2 * 10 * 34, 16, 140


def test_operations_are_counted_in_the_usual_layout_and_as_computed() -> None:
    # Prompt 2, chosen 3, rejected 1: apart 5 and 3 tokens that see 15 and 6 keys; together 6 tokens that see 15 + 3.
    packs = pack_batch(made_up_rows([(2, 3, 1)]), 100, 1)
    found = step_flops(SHAPE, packs, recompute=False)
    assert found == {
        "perf/effective_flops": 3 * (8 * TOKEN + 21 * KEY + 4 * SCORED),
        "perf/hardware_flops": 3 * (6 * TOKEN + 18 * KEY + 4 * SCORED),
    }
    again = step_flops(SHAPE, packs, recompute=True)
    assert again["perf/effective_flops"] == found["perf/effective_flops"]
    assert again["perf/hardware_flops"] == pytest.approx(4 / 3 * found["perf/hardware_flops"])
    adapters = step_flops(SHAPE, packs, recompute=True, frozen=True)  # no gradients of frozen weights
    assert adapters["perf/hardware_flops"] == pytest.approx(found["perf/hardware_flops"])
    assert adapters["perf/effective_flops"] == pytest.approx(found["perf/effective_flops"] * 2 / 3)
    assert step_flops(None, packs, recompute=False) == {}


def test_a_pack_that_only_keeps_in_step_is_work_and_no_use() -> None:
    alone = step_flops(SHAPE, pack_batch(made_up_rows([(2, 3, 1)]), 100, 1), recompute=False)
    two = step_flops(SHAPE, pack_batch(made_up_rows([(2, 3, 1)]), 100, 2), recompute=False)
    assert two["perf/effective_flops"] == alone["perf/effective_flops"]
    # One token each of prompt, chosen and rejected: 3 tokens that see 3 + 2 keys, 2 of them scored.
    idle = 3 * (3 * TOKEN + 5 * KEY + 2 * SCORED)
    assert two["perf/hardware_flops"] == alone["perf/hardware_flops"] + idle


def test_utilisation_is_a_share_of_the_peak_and_null_where_none_is_known(tmp_path: Path) -> None:
    def line(peak: float | None) -> dict[str, float | None]:
        path = tmp_path / f"{peak}.log"
        with Records.opened(tmp_path / "metrics.jsonl", path, peak=peak) as records:
            records.write({"step": 1, "tokens": 10}, {"perf/hardware_flops": 1e12, "perf/padding_share": 0.25}, 4)
        found: dict[str, float | None] = json.loads(path.read_text())
        return found

    known, unknown = line(1e15), line(None)
    assert known["perf/hardware_mfu"] == pytest.approx(1e12 / (1e15 * known["seconds"]))  # type: ignore[operator]
    assert unknown["perf/hardware_mfu"] is None
    assert known["perf/padding_share"] == unknown["perf/padding_share"] == 0.25
    assert "perf/hardware_flops" not in known


def test_peaks_are_the_makers_unless_given() -> None:
    assert device_named("NVIDIA H100 80GB HBM3") is DEVICES["H100"]
    assert device_named("NVIDIA H100 PCIe") is DEVICES["H100 PCIe"]
    assert device_named("cpu") is None
    assert peak_of(TrainConfig(), "NVIDIA H100 80GB HBM3", 8) == 8 * 989e12
    assert peak_of(TrainConfig(precision="fp32"), "NVIDIA A100-SXM4-80GB", 1) == 19.5e12
    assert peak_of(TrainConfig(), "cpu", 2) is None
    assert peak_of(TrainConfig(peak_tflops=0.25), "cpu", 2) == 0.5e12


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"), ("NVIDIA H200 NVL", "H200 NVL"), ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA A100-PCIE-40GB", "A100"), ("NVIDIA A100 80GB PCIe", "A100"),
        ("A100-SXM4-80GB", "A100"), ("NVIDIA A10", "A10"), ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        # Others, whose names have those in them.
        ("NVIDIA RTX A1000", None), ("NVIDIA RTX A1000 Laptop GPU", None), ("NVIDIA A100X", None),
        ("NVIDIA A10G", None), ("NVIDIA L40", None), ("NVIDIA H100L 94GB", None), ("NVIDIA GH200 480GB", None),
        ("NVIDIA GB200", None), ("NVIDIA GeForce RTX 4090 D", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        # A slice and two shares of one.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("GRID A100-20C", None), ("NVIDIA A10-12Q", None),
    ],
)  # fmt: skip
def test_a_device_is_known_by_whole_words_of_its_name(name: str, known: str | None) -> None:
    assert device_named(name) is (None if known is None else DEVICES[known])


def test_the_time_of_a_step_that_was_left_out_is_not_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 102.0, 150.0, 153.0])  # opened, after the first step, the one left out, and the third
    monkeypatch.setattr(records_module.time, "perf_counter", lambda: next(clock))
    with Records.opened(tmp_path / "metrics.jsonl", tmp_path / "perf.log") as records:
        records.write({"step": 1, "tokens": 10}, {}, 4)
        records.leave_out()
        records.write({"step": 3, "tokens": 12}, {}, 4)
    lines = [json.loads(line) for line in (tmp_path / "perf.log").read_text().splitlines()]
    assert [(line["step"], line["seconds"]) for line in lines] == [(1, 2.0), (3, 3.0)]
    assert lines[1]["tokens_per_second"] == 4.0


def test_a_pair_counts_as_truncated_when_an_answer_has_no_end() -> None:
    def row(chosen: int, rejected: int) -> TokenRow:
        return TokenRow("made.up/1", [5], [6, chosen], [7, rejected])

    rows = [row(2, 2), row(2, 9), row(9, 2), row(9, 9)]
    assert truncated_share(rows, 2) == {"data/truncated_share": 0.75}
    assert truncated_share(rows, None) == {}


class _Waits(TorchDispatchMode):
    """Counts how often a number is fetched from a tensor: on a GPU each of them waits for all that was started."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class _PlainEngine:
    """As much of the engine as a step calls, without DeepSpeed."""

    device = torch.device("cpu")

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def logps(self, pack: Pack) -> PairLogps:
        return pack_logps(self.model, pack)

    def backward(self, loss: Tensor) -> None:
        loss.backward()


def test_no_pack_waits_for_the_device_and_a_step_reduces_once(tiny_llama: Path, monkeypatch) -> None:
    rows = made_up_rows()
    packs = pack_batch(rows, 100, 1)[0]
    assert len(packs) > 2
    reductions: list[int] = []
    waits = _Waits()

    class Alone:
        get_world_size = staticmethod(lambda: 1)
        all_reduce = staticmethod(lambda _: reductions.append(waits.seen))

    monkeypatch.setattr(step, "dist", Alone)
    model = load_model(tiny_llama, precision="fp32", device="cpu")
    reference = PairLogps(torch.zeros(len(rows)), torch.zeros(len(rows)))
    with waits:
        run_packs(_PlainEngine(model), TrainConfig(batch_size=len(rows)), packs, reference, stop=False)  # type: ignore[arg-type]
    assert reductions == [0]  # one, and nothing was fetched before it
    assert waits.seen > 0  # what comes after it is seen: this count can tell
