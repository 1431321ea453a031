"""Every setting of DPO training, with its unit. Defaults are those of Tulu V2.5 DPO 13B, StackExchange 60k."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Precision = Literal["bf16", "fp32"]
_Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class LoraConfig(BaseModel):
    """Adapters that are trained in the place of the model. There is no dropout: its noise is in the policy and not in
    the reference, and a batch would no longer be the same update however it is packed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    rank: PositiveInt = 16
    """Inner size of the two matrices beside each layer."""
    alpha: PositiveFloat = 32.0
    """The product of the two counts alpha / rank times."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """The layers that get them: every linear layer but the head, or the ends of their names, such as
    [q_proj, v_proj]."""


class TrainConfig(BaseModel):
    """How the policy is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    # What cannot change the result beyond rounding stays out of the fingerprint.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {
            "tokens_per_pack",
            "recompute",
            "zero_stage",
            "offload",
            "ranks",
            "save_every",
            "resume",
            "tensorboard",
            "peak_tflops",
            "max_skipped_in_a_row",  # it ends a training early, and changes none that ends
        }
    )

    # Younger than the first trainings: at their defaults they stay out of it too, so that those are found again.
    later: ClassVar[frozenset[str]] = frozenset({"nonfinite", "lora", "order"})

    loss: Literal["sigmoid", "dpo_norm", "robust", "ld", "ipo", "ipo_sum", "simpo"] = "sigmoid"
    """What a pair costs: `sigmoid` is DPO on summed log-probs, `dpo_norm` on log-probs averaged over tokens; `robust`
    expects flipped labels; `ld` lets the longer answer's surplus count less; `ipo` squares, on averaged log-probs as
    TRL and IPO's authors do, `ipo_sum` on summed ones as printed; `simpo` needs no reference."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference, in the units of `loss`: 0.1 suits summed log-probs, 2 to 10 averaged
    ones."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Share of pairs taken to be the wrong way round (conservative DPO; what `robust` corrects for)."""
    ld_alpha: float = Field(0.5, ge=0.0, le=1.0)
    """With loss `ld`: weight of the tokens beyond the length of the pair's shorter answer."""
    simpo_gamma: NonNegativeFloat = 0.5
    """With loss `simpo`: margin to be reached, in units of beta times averaged log-probs."""
    sft_weight: NonNegativeFloat = 0.0
    """How much of the chosen answer's mean negative log-prob is added to the loss."""
    learning_rate: PositiveFloat = 5.0e-7
    """Peak learning rate, reached at the end of the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate after the warm-up; linear and cosine end at 0."""
    warmup_ratio: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of all optimizer steps in which the learning rate rises from 0."""
    batch_size: PositiveInt = 32
    """Pairs in one optimizer step, over all ranks."""
    epochs: PositiveInt = 3
    """Passes over the train pairs, each in an order of its own."""
    order: Literal["pairs", "questions"] = "pairs"
    """What is shuffled in each epoch: `pairs`, or `questions` with all pairs of one behind each other. Pairs of one
    question in the same batch share the computation of its prompt and of the answers that several of them compare, so
    that where few pairs of a question were left out, half of the work is saved; a batch then holds fewer questions."""
    adam_betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    """Decay of Adam's first and second moment."""
    adam_eps: PositiveFloat = 1.0e-8
    """Adam's epsilon."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Global norm to which gradients are clipped; null clips nothing."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What happens at a loss or gradient that is no finite number: the training stops with its pairs named, or the
    step makes no update and is counted and named."""
    max_skipped_in_a_row: PositiveInt = 3
    """With nonfinite `skip`: steps that may be left out one after the other; one more stops the training."""
    precision: Precision = "bf16"
    """Arithmetic of the forward and backward pass; master weights, log-softmax and loss are fp32 always."""
    lora: LoraConfig | None = None
    """Train small adapters (LoRA, by peft) in the place of the whole model; null trains the whole model. The result is
    a whole model either way. Wants a higher learning rate, 5e-6 and more."""
    tokens_per_pack: PositiveInt | None = None
    """Tokens in one forward pass of one rank; null lets the trainer choose. Never changes the batch."""
    recompute: bool | Literal["auto"] = "auto"
    """Whether activations are worked out again in the backward pass: a third more work for a fraction of the memory.
    `auto` does so on a GPU that would not hold them, and never on a CPU."""
    zero_stage: Literal[0, 1, 2, 3] = 3
    """What DeepSpeed shares out over the ranks: nothing, optimizer, gradients, parameters."""
    offload: Literal["none", "optimizer"] = "none"
    """Whether master weights, moments and the gradients that are added up lie in the host's memory instead of the
    GPUs', and Adam works there: 20 bytes a parameter over all ranks, and a slower step. Wants zero_stage 3, or 1 or 2
    with precision fp32."""
    ranks: PositiveInt = 8
    """Processes, one a GPU; on a CPU one a core or fewer."""
    save_every: PositiveInt = 100
    """Optimizer steps between two checkpoints."""
    resume: str = Field("auto", pattern=r"^(auto|fresh|from:.+)$")
    """`auto` goes on from the last whole checkpoint of this very training; `fresh` forgets it; `from:PATH`."""

    tensorboard: bool = False
    """Whether each step's numbers are also written for TensorBoard, into the folder `tensorboard` of the stage; wants
    the package of that name."""
    peak_tflops: PositiveFloat | None = None
    """What one rank's device can do at most, in 10^12 operations a second: what utilisation (MFU) is a share of; null
    takes the maker's figure for a known GPU, and none for a CPU."""

    @model_validator(mode="after")
    def _loss_knows_what_it_is_given(self) -> Self:
        if self.label_smoothing and self.loss in ("ipo", "ipo_sum"):
            raise ValueError(f"label_smoothing must be 0 with loss {self.loss}, which has no smoothed form")
        if self.sft_weight and self.loss == "ld":
            raise ValueError("sft_weight must be 0 with loss ld, whose log-probs leave out a part of the longer answer")
        return self

    @model_validator(mode="after")
    def _what_is_offloaded_is_shared_out_and_added_up_in_fp32(self) -> Self:
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError("offload optimizer needs zero_stage 1 or more: at stage 0 DeepSpeed does not offload")
        if self.offload == "optimizer" and self.precision == "bf16" and self.zero_stage < 3:
            raise ValueError(
                "offload optimizer with precision bf16 needs zero_stage 3: below it DeepSpeed adds the gradients of"
                " packs up in bf16 where they are offloaded"
            )
        return self

    @property
    def tail_weight(self) -> float:
        """What a token beyond the length of the pair's shorter answer counts in the sums of policy and reference."""
        return self.ld_alpha if self.loss == "ld" else 1.0

    def identity(self) -> dict[str, Any]:
        """The config without what cannot change the result: what is hashed."""
        unset = {key for key in self.later if getattr(self, key) == type(self).model_fields[key].default}
        return self.model_dump(mode="json", exclude={*self.incidental, *unset})
