"""DeepSpeed's settings for a training: what 0.19.8 would default is written out.

Defaults have changed under recipes before: clipping, overflow checks that skip steps, time-outs, buffer types.
"""

from typing import Any

from training.config import Precision, TrainConfig


def effective_stage(stage: int, precision: Precision) -> int:
    """The ZeRO stage that is run: DeepSpeed has no stage 0 with bf16 weights and fp32 gradients, stage 1 does the same
    update and shares out the optimizer."""
    return max(stage, 1) if precision == "bf16" else stage


def bucket_elements(device: str) -> int:
    """Gradients that are averaged over the ranks in one message."""
    return 50_000_000 if device == "cuda" else 10_000_000


def settings(config: TrainConfig, ranks: int, device: str) -> dict[str, Any]:
    """DeepSpeed's configuration, every value that bears on the result or the speed written out."""
    stage = effective_stage(config.zero_stage, config.precision)
    gpu = device == "cuda"  # on a CPU nothing overlaps, and buffers only cost memory and copies
    bucket = bucket_elements(device)
    offload: dict[str, Any] = {}
    if config.offload == "optimizer":
        # Pages that are locked are what a GPU reads and writes by itself; between two places on a host they are no use.
        where = {"device": "cpu", "pin_memory": gpu, "ratio": 1.0, "fast_init": False, "super_offload": False}
        offload = {"offload_optimizer": where}
    return {
        # Only for DeepSpeed's own counters: packs vary in size and number, and the loss carries the weights.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": ranks,
        "managed_gradient_accumulation": False,
        # At stage 0 `Engine` clips, since DeepSpeed would keep the norm to itself.
        "gradient_clipping": (config.max_grad_norm or 0.0) if stage > 0 else 0.0,
        "gradient_allreduce_op": "mean",
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {
            "enabled": config.precision == "bf16",
            "immediate_grad_update": False,
            # A step must not be skipped in silence: the loop stops at the first gradient that is not finite.
            "check_grad_overflow": False,
            "bf16_master_weights_and_grads": False,
            "bf16_optimizer_states": False,
        },
        "fp16": {"enabled": False},
        "torch_autocast": {"enabled": False},
        "zero_allow_untested_optimizer": False,
        "zero_force_ds_cpu_optimizer": False,  # `Engine` chooses the optimizer
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": gpu,
            "overlap_comm": gpu and stage >= 2,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "allgather_partitions": True,
            "allgather_bucket_size": bucket,
            "use_multi_rank_bucket_allreduce": True,
            "round_robin_gradients": False,
            "ignore_unused_parameters": True,
            "elastic_checkpoint": False,
            **offload,
            "sub_group_size": 1_000_000_000,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": False,
            "memory_efficient_linear": False,
        },
        "activation_checkpointing": {"partition_activations": False, "cpu_checkpointing": False},
        "wall_clock_breakdown": False,
        "dump_state": False,
    }
