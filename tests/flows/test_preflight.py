"""Preflight: what nvidia-smi may say, by an nvidia-smi of our own on the PATH that says it."""

import os
from pathlib import Path

import pytest

from flows.preflight import Device, devices, preflight, visible
from tasks.errors import StageFailed, TransientStageFailure

WELL = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 4, 35\n1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559, 4, 36\n"


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: str, apps: str = "", **fields: str) -> None:
    """Put an nvidia-smi on the PATH that answers with these rows; a field it is not told of it does not know."""
    cases = [("--query-gpu=index*", gpus), ("--query-compute-apps=*", apps)]
    cases += [(f"--query-gpu={name.replace('__', '.')}", text) for name, text in fields.items()]
    arms = "".join(f"{pattern}) printf '%s' '{text}';;\n" for pattern, text in cases)
    script = f'#!/bin/sh\ncase "$1" in\n{arms}*) echo "Field is not a valid field to query."; exit 2;;\nesac\n'
    path = folder / "nvidia-smi"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_host_without_nvidia_smi_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preflight() == []


def test_devices_that_are_well_and_free_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus=WELL, remapped_rows__failure="0\n0\n", retired_pages__pending="No\nNo\n")
    assert [(device.index, device.total, device.faults) for device in preflight()] == [(0, 81559, ()), (1, 81559, ())]


def test_a_device_that_a_process_uses_is_refused_by_name_and_may_be_free_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus=WELL, apps="GPU-bbbb, 4711, python3, 2048\n")
    with pytest.raises(
        TransientStageFailure, match=r"GPU 1 \(NVIDIA H100.*GPU-bbbb\).*process 4711 \(python3, 2048 MiB"
    ):
        preflight(free_within=0.0)


def test_memory_taken_by_a_process_that_a_container_hides_is_busy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus="0, GPU-aaaa, H100, 81559, 60000, 35\n")
    with pytest.raises(TransientStageFailure, match="60,000 of 81,559 MiB"):
        preflight(free_within=0.0)


@pytest.mark.parametrize(
    ("field", "answer", "said"),
    [
        ("ecc__errors__uncorrected__volatile__total", "0\n3\n", "3 uncorrected memory errors"),
        ("remapped_rows__failure", "0\n1\n", "could not be remapped"),
        ("retired_pages__pending", "No\nYes\n", "wait for a reset to be retired"),
    ],
)
def test_a_sick_device_is_refused_by_name_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, answer: str, said: str
) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus=WELL, **{field: answer})
    with pytest.raises(StageFailed, match=f"GPU 1 .*{said}") as caught:
        preflight()
    assert not isinstance(caught.value, TransientStageFailure)


def test_a_field_that_the_device_does_not_support_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus=WELL, remapped_rows__failure="[N/A]\n[N/A]\n")
    assert all(not device.faults for device in devices())


def test_a_driver_that_answers_nothing_readable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, gpus="Unable to determine the device handle for GPU0: GPU is lost\n")
    with pytest.raises(StageFailed, match="GPU is lost"):
        preflight()


def test_only_visible_devices_are_looked_at() -> None:
    found = [Device(number, f"GPU-{letter * 4}", "H100", 81559, 0, 30) for number, letter in enumerate("abc")]
    assert [device.index for device in visible(found, None)] == [0, 1, 2]
    assert [device.index for device in visible(found, "2,GPU-aa")] == [2, 0]
    assert [device.index for device in visible(found, "1,9,0")] == [1]  # CUDA ignores what follows an invalid one
    assert visible(found, "") == []
