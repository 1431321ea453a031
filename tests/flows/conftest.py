"""A Prefect server, a tiny model and a small recipe for the tests that want the whole run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREFSTACK = Path(sys.executable).with_name("prefstack")
PREFECT = Path(sys.executable).with_name("prefect")

TINY = """\
model: {model}
work_dir: {work_dir}
ingest: {{sources: [demo-site]}}
pair: {{rule: pm, max_pairs_per_question: 2}}
sample: {{size: 16, held_out: 8}}
tokenize: {{max_length: 256}}
train: {{learning_rate: 1.0e-3, batch_size: 4, epochs: 1, precision: fp32, zero_stage: 2, ranks: 1, save_every: 2}}
evaluate: {{bootstrap: 100}}
publish: {{name: tiny}}
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama of random weights with a byte-level tokenizer, as a folder that transformers loads."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-model")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(["What makes a dough rise slowly overnight? Fold it, rest it, bake it."] * 4, trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Runs `prefstack` as a user does, in a folder and with a Prefect home of its own."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, timeout: float = 300) -> Outcome:
        done = subprocess.run(
            [PREFSTACK, *arguments], cwd=self.folder, env=dict(self.environment), capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who has never heard of Prefect."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    return {**kept, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture
def shell(tmp_path: Path, prefect_home: Path) -> Shell:
    for package in ("data_checks", "flows", "tasks", "training"):  # as users of Prefect call folders of their own
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('this is not prefstack')")
    return Shell(tmp_path, clean_environment(prefect_home))


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(model=tiny_model, work_dir=tmp_path / "work"))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A real Prefect server on loopback."""

    url: str
    environment: dict[str, str]


@contextmanager
def served_at(home: Path, port: int) -> Iterator[Server]:
    """The server that `prefstack up` starts, with all its services, on the database in `home`, for this context.

    Not a plain `prefect server start`: on a busy machine that loses events (flows/prefect_server.py says why).
    """
    environment = clean_environment(home, PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")
    log = (home / "server.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.prefect_server", "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/api"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (home / "server.log").read_text()[-2000:]
                assert time.monotonic() < end, "the server did not become healthy in two minutes"
                time.sleep(0.2)
        yield Server(url, {**environment, "PREFECT_API_URL": url})
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server for all tests of the session."""
    home = tmp_path_factory.mktemp("server-home")
    try:
        with served_at(home, free_port()) as found:
            yield found
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def here(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """This process talks to the real server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setenv("PREFECT_API_URL", server.url)
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server


@pytest.fixture
def served(server: Server, tmp_path: Path) -> Shell:
    """The command of a user whose server stays: for tests that are not about the temporary one, and need not wait."""
    return Shell(tmp_path, {**server.environment, "OMP_NUM_THREADS": "1"})
