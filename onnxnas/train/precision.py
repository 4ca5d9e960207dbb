"""In which precision forward passes of training run."""

from __future__ import annotations

import torch

from onnxnas.train.settings import TrainSettings


def bf16_helps(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def in_bf16(settings: TrainSettings, device: torch.device) -> bool:
    """What the settings say; 'auto' is bfloat16 where it helps."""
    return bf16_helps(device) if settings.bf16 == "auto" else settings.bf16
