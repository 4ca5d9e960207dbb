"""Where training runs, and in which precision."""

from __future__ import annotations

import os

import torch

from onnxnas.train.settings import TrainSettings


def chosen_device(device: str) -> str:
    """The device that 'auto' stands for: an accelerator where torch has one, else the CPU.

    Processes of a launcher on one host each have an accelerator of their own, by LOCAL_RANK.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = os.environ.get("LOCAL_RANK")
    return f"cuda:{place}" if device == "cuda" and place is not None else device


def bf16_helps(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def in_bf16(settings: TrainSettings, device: torch.device) -> bool:
    """What the settings say; 'auto' is bfloat16 where it helps."""
    return bf16_helps(device) if settings.bf16 == "auto" else settings.bf16
