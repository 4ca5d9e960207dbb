"""What a user may choose about training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainSettings(BaseModel):
    """Settings of one training run; the defaults suit images of about 32 x 32 and a pretrained network.

    The learning rate warms up over the share `warmup` of the run, then follows half a cosine down to
    `final_lr` times its peak. The run ends after `epochs`, or after `max_seconds` if that comes first: the
    schedule then runs on the clock, so it still reaches its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = Field(
        "alternating", description="alternating, sandwich, progressive, single_stage, fixed, or module:name"
    )
    random_subnets: int = Field(1, ge=0, description="random sub-networks per step")
    smallest: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25,
        description="least share of the multiply-accumulates that a trained sub-network keeps, sizes being drawn "
        "evenly; 0: every dimension is drawn evenly, however small the outcome",
    )
    epochs: Positive = 12.0
    max_seconds: Positive | None = None
    batch_size: int = Field(128, ge=1)
    accumulate: int = Field(
        1,
        ge=1,
        description="parts that a batch is computed in, to save memory; statistics are then of a part",
    )

    processes: int | None = Field(
        None, ge=1, description="that train together; none: as is fastest here, if there is time to find out"
    )

    lr: Positive | None = Field(
        None, description="peak learning rate; none: the optimizer's own, see onnxnas/train/optimizer.py"
    )
    final_lr: Share = 0.01
    warmup: Share = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(None, description="none: the optimizer's own")
    grad_clip: Positive | None = 5.0
    optimizer: str = Field(
        "auto",
        description="auto (adamw where the network attends, else sgd), sgd, adamw, "
        "or module:name of (groups, settings) -> Optimizer",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of the moving average of the weights that is kept in the end; None: no average",
    )

    loss: str = Field(
        "auto", description="auto (the data's), cross_entropy, mse, l1, distillation, module:name"
    )
    distillation: Share = Field(0.9, description="weight of the teacher's outputs; the labels have the rest")
    temperature: Positive = 4.0
    in_place: bool = Field(False, description="sub-networks learn from the maximal one of the same step")
    augment: bool = True
    mixed: Share = Field(
        0.0,
        description="share of the batches in which each picture has a patch of another (CutMix); what they are, the "
        "teacher alone says",
    )
    mirrored: bool = Field(
        False,
        description="epochs come in pairs, the second one of the mirror images of the first, and of both the teacher "
        "says the mean of what it says of either; for classes of pictures that are flipped",
    )
    distinct_epochs: int | None = Field(
        None,
        ge=1,
        description="epochs after which the same batches come again, about which a teacher whose answers are kept need "
        "not be asked again; none: they never do",
    )

    bf16: bool | Literal["auto"] = "auto"
    deterministic: bool = False

    eval_every: Annotated[float, Field(ge=0)] = Field(1.0, description="epochs between evaluations; 0: none")
    eval_images: int = Field(2000, ge=1)
    eval_random: int = Field(2, ge=0, description="random sub-networks evaluated, besides the extremes")
    recalibration_images: int = Field(2048, ge=1)
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    log_steps: int = Field(50, ge=1)

    def for_finetuning(self, **changes: Any) -> TrainSettings:
        """The same for one network: no sampling, and these changes."""
        body = {**self.model_dump(), "strategy": "fixed", "in_place": False, "eval_random": 0, **changes}
        return TrainSettings.model_validate(body)
