"""The ranks of a training and where each of them is: its device, that device's memory, the process group."""

import logging
import os
import warnings
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from training.status import TrainerError

# Longer than any save; a rank that is gone is noticed by the launcher long before.
PROCESS_GROUP_TIMEOUT: Final = timedelta(minutes=60)


def rank_device() -> torch.device:
    """The device of this rank: the GPU of its local rank, or the CPU where there is none.

    Raises TrainerError of kind `recipe` when there are GPUs, but fewer than ranks.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= here:
        ranks = os.environ.get("WORLD_SIZE", "1")
        raise TrainerError("recipe", f"train.ranks asks for {ranks} GPUs on this host and it has {here}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def device_memory(device: torch.device) -> int:
    """Bytes that the device has in all; on a CPU those of the host, which all ranks share."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def join_ranks(device: torch.device) -> None:
    """Join the process group of all ranks (gloo between CPUs, NCCL between GPUs); alone, a group of one."""
    for name, alone in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, alone)
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed clones the world with new_group, which takes torch's default and not the time-out given below.
    dist.distributed_c10d.default_pg_timeout = PROCESS_GROUP_TIMEOUT
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed 0.19.8 calls collectives by names that torch 2.13 has renamed.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.distributed.*deprecated")
    import deepspeed
    import deepspeed.ops

    # Compiled at first use, for a minute, and an error where there is no compiler; gloo gives the same sums.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False, timeout=PROCESS_GROUP_TIMEOUT, verbose=False,
    )  # fmt: skip


def leave_ranks() -> None:
    """Leave the process group; every rank calls it, none waits for another afterwards."""
    dist.destroy_process_group()
