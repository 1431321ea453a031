"""How much memory a rank of a training takes, from the shape of the model and the settings alone.

Nothing is measured and torch is not loaded. `benchmarks/memory.py` compares this with measured peaks.

N parameters, R ranks. A rank holds its parameters, the fp32 master copy, Adam's two moments, the gradients that its
packs add up, what one pack keeps for its backward pass, and a process. On a CPU everything that was ever needed stays
with the process (training/allocator.py), so what passes at different times is added up; a GPU's allocator gives it
to whoever comes next.
"""

from dataclasses import asdict, dataclass
from typing import Final, Literal

from training.config import LoraConfig, Precision
from training.shape import ModelShape
from training.zero import bucket_elements, effective_stage

MIB: Final = 2**20
BASE: Final = {"cpu": 640 * MIB, "cuda": 1200 * MIB}
"""A process with torch, transformers and DeepSpeed in it; on a GPU its context and NCCL's buffers."""
SPARE: Final = {"cpu": 0.0, "cuda": 0.05}
"""Share of a GPU's tensors that its allocator loses in gaps."""
# As in training/head.py, which loads torch.
LOGITS_KEPT: Final = 256 * MIB
LOGITS_AT_A_TIME: Final = 64 * MIB
# DeepSpeed's stage3_max_live_parameters (training/zero.py): parameters that ZeRO-3 keeps gathered.
LIVE_PARAMETERS: Final = 1_000_000_000

# DeepSpeed's MEMORY_OPT_ALLREDUCE_SIZE.
STAGE_0_BUCKET: Final = 500_000_000

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Load:
    """What the memory of a rank depends on, beside the model."""

    device: DeviceKind
    precision: Precision
    zero_stage: int
    ranks: int
    tokens: int
    """Tokens of the largest pack."""
    recompute: bool = False
    lora: LoraConfig | None = None
    """Adapters that are trained in the place of the model."""
    offload: bool = False
    """Whether the optimizer's states and the gradients that are added up lie in the host's memory."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank at its peak, by what they are for."""

    base: int
    parameters: int
    master: int
    moments: int
    gradients: int
    """Those that the packs add up, in fp32; on a CPU those of the pass at work beside them."""
    update: int
    """Gradients in one piece for the optimizer, beside the room that they come from."""
    buffers: int
    """For messages between ranks, and parameters that ZeRO-3 has gathered."""
    activations: int
    logits: int
    loading: int
    """What more it takes for a moment to read the start model from its file, in fp32 at most, before anything else is
    there; on a CPU, where the pages of a mapped file count."""
    spare: int
    """What an allocator holds and cannot hand out."""
    total: int
    host: int
    """What lies in the host's memory in the place of a GPU's: beside the total, and 0 on a CPU."""

    def parts(self) -> dict[str, int]:
        """Those of the total. They add up to it on a CPU; on a GPU `update` and what a pack keeps share their room."""
        return {name: size for name, size in asdict(self).items() if name not in ("total", "host")}


def rank_memory(shape: ModelShape, load: Load) -> RankMemory:
    """The peak of one rank."""
    stage = effective_stage(load.zero_stage, load.precision)
    count, narrow = shape.parameters, width(load.precision)
    share = count / load.ranks if stage > 0 else float(count)
    # What is frozen has neither master copy nor gradient nor moments.
    trained = trained_parameters(shape, load.lora)
    part = trained / load.ranks if stage > 0 else float(trained)
    buffers = float(message_bytes(shape, load))
    if stage == 3:
        buffers += narrow * min(count - share, LIVE_PARAMETERS)
    parts = {
        "parameters": narrow * (share if stage == 3 else count),
        "master": 4 * part if stage > 0 else 0.0,  # at stage 0 in fp32 the parameters are their own master
        "moments": 8 * part,
        "gradients": 4 * (trained if stage < 2 else part),
        # In bf16 what is added up lies in one piece from the start. At stage 1, which has another optimizer, it stays;
        # at stage 2 each update drops it, the next pass cuts up its room, and it takes another.
        "update": 4 * part if stage > 1 or (stage == 1 and load.precision == "fp32") else 0.0,
        "buffers": buffers,
        "activations": activation_bytes(shape, load),
        "logits": logit_bytes(shape, load),
        "loading": 0.0,
    }
    host = 0.0
    if load.offload and stage > 0 and load.device == "cuda":
        host = host_bytes(part, stage)
        # What a pass has at once of gradients is in the messages; at stage 1 it has all of them.
        parts |= {"master": 0.0, "moments": 0.0, "update": 0.0, "gradients": 4 * trained if stage == 1 else 0.0}
    elif load.offload and stage in (1, 2):  # as host_bytes, and the largest parameter's gradient on both sides
        parts["buffers"] += 4 * part + 2 * 4 * shape.embedding
    if load.device == "cpu":
        # The gradients of a pass stay until its end, where those of the passes before it wait in fp32. (On a GPU they
        # go into the buffer of a message as soon as they are there.)
        if stage > 1:
            parts["gradients"] += part * (narrow if stage == 2 else 4)
        elif load.precision == "bf16":
            parts["gradients"] += narrow * trained
        # DeepSpeed copies the parameters when it starts; later the passes take that room.
        passing = sum(parts[name] for name in ("gradients", "update", "buffers", "activations", "logits"))
        parts["gradients"] += max(0.0, _start_up(trained, part, load.precision, stage) - passing)
        held = sum(parts.values())
        parts["loading"] = max(0.0, (narrow + 4) * count - held)
        held += parts["loading"]
    else:
        held = sum(parts.values()) - min(parts["update"], parts["activations"] + parts["logits"])
    spare = SPARE[load.device] * held
    sizes = {name: int(size) for name, size in parts.items()}
    total = int(BASE[load.device] + held + spare)
    return RankMemory(BASE[load.device], **sizes, spare=int(spare), total=total, host=int(host))


def host_bytes(part: float, stage: int) -> float:
    """Of a rank that updates `part` parameters there, as DeepSpeed 0.19.8 offloads them: 20 a parameter at stage 3
    (the fp32 master, two moments, gradients as they are added up and once more for Adam), and at stages 1 and 2 the
    updated weights on their way back too."""
    return part * (20 if stage == 3 else 24)


def message_bytes(shape: ModelShape, load: Load) -> int:
    """What ranks send each other at a time, and the sum of the embedding's two gradients where it is the head too."""
    bucket, narrow = bucket_elements(load.device), width(load.precision)
    trained, stage = trained_parameters(shape, load.lora), effective_stage(load.zero_stage, load.precision)
    if stage == 0:  # where DeepSpeed has a size of its own
        return 4 * min(STAGE_0_BUCKET, trained)
    if load.device == "cuda" or stage == 3:
        return 4 * bucket + narrow * shape.embedding
    # Gradients are laid side by side and then widened; one that is larger than a message goes alone, and is widened.
    widened = 4 if load.precision == "bf16" else 0
    several = (narrow + widened) * min(bucket, trained)
    gathered = narrow * trained if load.ranks > 1 else 0  # gloo makes a copy of what ranks tell each other at the end
    if load.lora is not None:
        return several + gathered
    alone = widened * shape.embedding if shape.embedding > bucket else 0
    gathered += narrow * shape.embedding if shape.tied else 0
    return max(several, alone) + gathered


def _start_up(count: float, share: float, precision: Precision, stage: int) -> float:
    """Copies of the parameters that DeepSpeed makes and drops when it starts."""
    if stage == 0:
        return 4 * count
    return 4 * count if precision == "fp32" else 4 * count + 4 * share


def activation_bytes(shape: ModelShape, load: Load) -> int:
    """What a pack's forward pass keeps for the backward pass, and the working room of one layer in it."""
    narrow = width(load.precision)
    # Of a layer: its input and the same normed, queries, keys, values, what attention gives, the sum with the input
    # and the same normed, gate and up (training/lean.py works out the rest again).
    kept = narrow * (4 * shape.hidden + 2 * shape.query_size + 2 * shape.key_size + 2 * shape.mlp)
    # On a GPU attention gathers keys and values, at most twice the tokens that a pack may hold, however many answers
    # share a prompt (`room` in training/batch.py); on a CPU those of one sequence at a time, which does not last.
    if load.device == "cuda":
        kept += narrow * 2 * 2 * shape.key_size
    if load.lora is not None and adapts(load.lora, "down_proj"):  # which training/lean.py leaves as it is
        kept += narrow * 2 * shape.mlp
    # The gated MLP's backward pass, with a norm's fp32 values still there.
    working = narrow * 4 * shape.mlp + 4 * 3 * shape.hidden
    layers = narrow * shape.hidden * shape.layers + kept if load.recompute else kept * shape.layers
    ends = narrow * 3 * shape.hidden  # the last norm's input and output, and the rows that are scored
    return load.tokens * (layers + working + ends)


def logit_bytes(shape: ModelShape, load: Load) -> int:
    """What the head keeps, what it works on at a time, and the gradient of its weight; all positions scored."""
    row = 4 * shape.vocabulary
    kept = min(load.tokens * row, LOGITS_KEPT)
    at_a_time = min(max(0, load.tokens * row - kept), LOGITS_AT_A_TIME)
    if load.precision == "fp32":
        return kept + at_a_time
    # The backward pass narrows what is kept, and adds up the weight's gradient in fp32.
    backward = kept // 2 + (4 * shape.embedding if load.lora is None else 0)
    # The forward pass writes to what is kept from the product, which is wide on a GPU and narrow on a CPU.
    forward = kept if load.device == "cuda" else kept // 2
    return kept + at_a_time + max(forward, backward)


def trained_parameters(shape: ModelShape, lora: LoraConfig | None) -> int:
    """All of the model, or those of the adapters: two matrices beside each layer that gets them."""
    if lora is None:
        return shape.parameters
    hidden, mlp = shape.hidden, shape.mlp
    ends = {
        "q_proj": hidden + shape.query_size, "k_proj": hidden + shape.key_size, "v_proj": hidden + shape.key_size,
        "o_proj": shape.query_size + hidden, "gate_proj": hidden + mlp, "up_proj": hidden + mlp,
        "down_proj": mlp + hidden,
    }  # fmt: skip
    return lora.rank * shape.layers * sum(size for name, size in ends.items() if adapts(lora, name))


def adapts(lora: LoraConfig, layer: str) -> bool:
    """Whether the linear layers called `layer` get adapters."""
    return lora.targets == "all-linear" or any(target.rpartition(".")[2] == layer for target in lora.targets)


def width(precision: Precision) -> int:
    """Bytes of a parameter or an activation."""
    return {"bf16": 2, "fp32": 4}[precision]
