"""The published folder: its template renders what was trained on, its end stops, and errors name what is not so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StageFailed
from tasks.publication.model_folder import ROWS, check_model_folder, complete_generation_config


@pytest.fixture
def model(finished: Any, tmp_path: Path) -> Path:
    folder: Path = shutil.copytree(finished.stages["train"].path("model"), tmp_path / "model")
    return folder


def check(model: Path, run: Any) -> int:
    return check_model_folder(model, run.stages["tokenize"].path("train"), run.stages["sample"].path("train.parquet"))


def test_rows_as_trained_are_rendered_and_compared(model: Path, finished: Any) -> None:
    assert check(model, finished) == ROWS


def test_a_template_that_renders_other_tokens_is_refused_with_the_pair(model: Path, finished: Any) -> None:
    template = model / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("eos_token", "''"), encoding="utf-8")
    with pytest.raises(StageFailed, match=r"renders pair \S+\.example\.com/\d+/\d+/\d+ as other tokens"):
        check(model, finished)
    template.write_text(text.replace("{{ '<|assistant|>\\n' }}{% endif %}", "{{ 'Well:' }}{% endif %}"))
    with pytest.raises(StageFailed, match="as other tokens"):
        check(model, finished)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("chat_template.jinja", "no chat template"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors", "no safetensors"),
    ],
)
def test_what_is_missing_is_named(lost: str, said: str, model: Path, finished: Any) -> None:
    (model / lost).unlink()
    with pytest.raises(StageFailed, match=said):
        check(model, finished)


def test_a_missing_generation_config_is_written_and_one_that_stops_elsewhere_learns_the_end(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    complete_generation_config(tmp_path, begin=0, end=1)
    assert json.loads(path.read_text()) == {"bos_token_id": 0, "eos_token_id": 1}
    path.write_text(json.dumps({"eos_token_id": 7, "temperature": 0.5}))
    trained = tmp_path / "trained.json"
    trained.hardlink_to(path)
    complete_generation_config(tmp_path, begin=None, end=1)
    assert json.loads(path.read_text()) == {"eos_token_id": [1, 7], "temperature": 0.5}
    assert json.loads(trained.read_text())["eos_token_id"] == 7  # the trained model's own file is as it was
    before = path.read_bytes()
    complete_generation_config(tmp_path, begin=0, end=1)
    assert path.read_bytes() == before
