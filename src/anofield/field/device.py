"""Choice of the device, and whether a device multiplies bfloat16 matrices in hardware."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch

from anofield.errors import MachineError, UsageError

Precision = Literal["auto", "float32", "bfloat16"]


def wants_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply matrices in bfloat16; `auto` does where the device has it in hardware.

    Raises:
        UsageError: The precision is unknown.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"unknown precision {precision!r}", remedy=f"choose one of {', '.join(get_args(Precision))}")
    return has_fast_bfloat16(device) if precision == "auto" else precision == "bfloat16"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (tensor cores, AVX512-BF16, AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def pick_device(name: str | torch.device) -> torch.device:
    """The device with this name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        MachineError: The named device is not available.
        UsageError: No device has this name.
    """
    name = str(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    kind, _, number = name.partition(":")
    if kind not in available or (number and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}", remedy="use auto, cpu, cuda, cuda:N or mps")
    if not available[kind] or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        raise MachineError(f"no device {name!r} here", remedy="use --device auto; `anofield info` lists the devices")
    return torch.device(name)


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Turn a failed allocation in the body into a `MachineError`; torch reports one on the CPU as RuntimeError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = str(error).partition("\n")[0]
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and "alloc" not in told:
            raise
        raise MachineError("out of memory", why=told, remedy=remedy) from error
