"""Checkpoints as transactions, in a form that knows neither ranks nor ZeRO stage.

    checkpoints/step-00000100/   state-00000.safetensors ...   weight/NAME, exp_avg/NAME, exp_avg_sq/NAME, fp32, whole
                                 metrics.jsonl                 the steps before this one
                                 checkpoint.json               step, identity, skipped, size and sha256 of every file
    checkpoints/latest           the name of the newest

DeepSpeed's own format is torn by a kill at the wrong moment, and tied to the number of ranks. Here parameters are
gathered one by one and written as they are: any number of ranks and any stage goes on from them, on the same ranks
with the same losses bit for bit. Where the data stands needs no saving: it is a function of the step.

A folder without the dot of `.writing-` was renamed after its last byte was synced and read back. What a later fault
of the disk did to it shows in the digests: it is refused by name and the one before it is taken.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, no_grad

from training.engine import Engine, ParameterState
from training.status import TrainerError

RECORD: Final = "checkpoint.json"
METRICS: Final = "metrics.jsonl"
_KEPT: Final = 2  # the newest, and the one to fall back to
_SHARD_ELEMENTS: Final = 20_000_000  # 240 MB of weights and moments

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk."""

    folder: Path
    step: int
    """Steps made; the number of the next one, from 0."""
    identity: dict[str, Any]
    """What the losses depend on: config, seed, pairs, reference."""
    shards: dict[str, str]
    """The file that holds each parameter."""
    skipped: tuple[dict[str, Any], ...] = ()
    """The steps that made no update (training/nonfinite.py)."""

    def state(self, name: str) -> ParameterState:
        """Weight and moments of one parameter, read when asked for."""
        with safe_open(self.folder / self.shards[name], framework="pt") as shard:
            return ParameterState(name, *(shard.get_tensor(f"{key}/{name}") for key in ParameterState._fields[1:]))

    @no_grad()
    def load_weights(self, model: nn.Module) -> None:
        """Put the trained weights into a model that is not yet under DeepSpeed, rounded to its dtype."""
        parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        if parameters.keys() != self.shards.keys():
            raise TrainerError("checkpoint", f"{self.folder} holds other parameters than the model")
        for name, parameter in parameters.items():
            parameter.copy_(self.state(name).weight)


def save_checkpoint(
    folder: Path, engine: Engine, *, step: int, identity: dict[str, Any], metrics: Path,
    skipped: Sequence[dict[str, Any]] = (),
) -> None:  # fmt: skip
    """Write a checkpoint; all ranks call together, and each writes its share of the files.

    Returns on every rank after the new checkpoint has been read back, renamed and pointed to, and old ones removed.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    place, scratch = folder / f"step-{step:08d}", folder / f".writing-step-{step:08d}"
    if rank == 0:
        for left in folder.glob(".writing-*"):
            shutil.rmtree(left)
        scratch.mkdir(parents=True)
    dist.barrier()
    records: dict[str, Future[dict[str, Any]]] = {}
    shards: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=1) as writer:  # files are written while the next parameters are gathered
        for number, name, tensors in _shards(engine, rank, ranks):
            shards |= dict.fromkeys(tensors, name)
            if number % ranks == rank:
                for earlier in records.values():  # one file at a time waits in memory
                    earlier.result()
                whole = {f"{key}/{one}": value for one, state in tensors.items() for key, value in state.items()}
                records[name] = writer.submit(_write_shard, scratch / name, whole)
    mine = {name: record.result() for name, record in records.items()}
    gathered: list[dict[str, Any] | None] = [None] * ranks
    dist.all_gather_object(gathered, mine)  # every file is on the disk after this
    if rank == 0:
        files = {name: record for part in gathered if part is not None for name, record in part.items()}
        files[METRICS] = _write(scratch / METRICS, metrics.read_bytes())
        record = {"format": 1, "step": step, "identity": identity, "files": files, "shards": shards}
        if skipped:
            record["skipped"] = list(skipped)
        _write(scratch / RECORD, json.dumps(record, sort_keys=True, indent=1).encode())
        _sync(scratch)
        if place.exists():  # a damaged one that was refused
            shutil.rmtree(place)
        scratch.rename(place)
        _sync(folder)
        _point(folder, place.name)
        # Any of a later step was refused, or this one would not have been written: they are in no one's way back.
        found = _newest_first(folder)
        at = found.index(place)
        for other in found[:at] + found[at + _KEPT :]:
            shutil.rmtree(other)
    dist.barrier()


def find_checkpoint(folder: Path, identity: dict[str, Any]) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of this training under `folder`, and what is wrong with each newer one."""
    refused: list[str] = []
    for place in _newest_first(folder):
        try:
            return read_checkpoint(place, identity), refused
        except TrainerError as error:
            log.warning("%s", error)
            refused.append(str(error))
    return None, refused


def read_checkpoint(place: Path, identity: dict[str, Any]) -> Checkpoint:
    """The checkpoint in `place`, every file of it verified; TrainerError of kind `checkpoint` names what is wrong.

    One of another training is refused too: other numerics behind the same name would change the recipe in silence.
    """
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        found = Checkpoint(
            place, record["step"], record["identity"], record["shards"], tuple(record.get("skipped", ()))
        )
        files = record["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainerError("checkpoint", f"checkpoint {place} is refused: {RECORD} cannot be read ({error})") from error
    if found.identity != identity:
        differing = ", ".join(sorted(key for key in identity if found.identity.get(key) != identity[key]))
        raise TrainerError("checkpoint", f"checkpoint {place} is refused: it is of a training with other {differing}")
    for name, expected in files:
        try:
            size = (place / name).stat().st_size
            digest = _sha256(place / name) if size == expected["size"] else None
        except OSError as error:
            fault = f"{name} cannot be read ({error.strerror or error})"
            raise TrainerError("checkpoint", f"checkpoint {place} is refused: {fault}") from error
        if digest is None:
            fault = f"{name} has {size} bytes and should have {expected['size']}"
        elif digest != expected["sha256"]:
            fault = f"{name} has other bytes than were written"
        else:
            continue
        raise TrainerError("checkpoint", f"checkpoint {place} is refused: {fault}")
    return found


def _shards(engine: Engine, rank: int, ranks: int) -> Iterator[tuple[int, str, dict[str, dict[str, Tensor]]]]:
    """Parameters in the model's order, in files of about the same size whatever the ranks: (number, name, content).

    Only the rank that writes a file gets its tensors; the others get the names.
    """
    number, elements = 0, 0
    held: dict[str, dict[str, Tensor]] = {}
    for state in engine.states():
        mine = number % ranks == rank
        held[state.name] = (
            {key: value.to("cpu", copy=True).contiguous() for key, value in state._asdict().items() if key != "name"}
            if mine
            else {}
        )
        elements += state.weight.numel()
        if elements >= _SHARD_ELEMENTS:
            yield number, f"state-{number:05d}.safetensors", held
            number, elements, held = number + 1, 0, {}
    if held:
        yield number, f"state-{number:05d}.safetensors", held


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write tensors, sync them and read them back; the record of the file."""
    save_file(tensors, path)
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
    with safe_open(path, framework="pt") as written:
        for name, tensor in tensors.items():
            if not torch.equal(written.get_tensor(name), tensor):
                raise TrainerError(
                    "disk", f"{path} does not read back as it was written: the disk is not to be trusted"
                )
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Write and sync; the record of the file."""
    with open(path, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _point(folder: Path, name: str) -> None:
    scratch = folder / ".latest.tmp"
    scratch.write_text(name + "\n", encoding="utf-8")
    scratch.rename(folder / "latest")


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
