"""Which arithmetic a training uses, and on what kind of processor: both decide its bits.

``auto`` takes bfloat16 where the processor multiplies it in hardware (AVX-512 BF16, AMX, a GPU from Ampere on), since
elsewhere it is emulated and slower. PyTorch is asked, which asks the processor as oneDNN does. Weights, their moving
average and the optimizer have 32 bits whatever is chosen. Deliberately absent: a trial run that measures which is
faster (its outcome might differ from one start to the next), and a choice of 16-mixed, which can overflow.
"""

import re

import torch

from dermdistill.params import Train
from dermdistill.training import distributed


def choose(settings: Train) -> Train:
    """``settings`` with ``auto`` replaced by what it takes here, which is printed in one line."""
    if settings.devices.precision != "auto":
        return settings
    taken = "bf16-mixed" if _computes_bfloat16() else "32-true"
    if not distributed.rank():
        print(f"train.devices.precision auto: {taken} on {processor()}", flush=True)
    return settings.model_copy(update={"devices": settings.devices.model_copy(update={"precision": taken})})


def processor() -> str:
    """The GPU's name, or what of the CPU decides which kernels run, such as ``avx512-bf16``; fit for a file's name."""
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower())
    kernels = torch.backends.cpu.get_cpu_capability().lower()
    return "-".join([kernels, *(["bf16"] if _has("avx512_bf16") else []), *(["amx"] if _has("amx_bf16") else [])])


def _computes_bfloat16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _has("avx512_bf16") or _has("amx_bf16")


def _has(feature: str) -> bool:
    return bool(torch.cpu.get_capabilities().get(feature))  # empty of features on processors other than x86
