"""What GPUs can do at most, to say how much of it a training uses. No torch."""

import re

PEAK_FLOPS = {
    "A10": 125e12, "A30": 165e12, "A40": 150e12, "A100": 312e12, "A800": 312e12, "RTX A6000": 155e12,
    "L4": 121e12, "L40": 181e12, "L40S": 362e12, "RTX 4090": 165e12,
    "H100": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H800": 989e12, "H200": 989e12, "GH200": 989e12,
    "B200": 2250e12,
}  # fmt: skip
"""Dense bf16 FLOP/s from NVIDIA's data sheets (those with sparsity halved), by words of the device's name."""


def peak_flops(device: str) -> float | None:
    """Of a device by the name that CUDA has for it; None for one that the table does not know."""
    words = set(re.split(r"[^A-Za-z0-9]+", device))
    known = [name for name in PEAK_FLOPS if set(name.split()) <= words]
    return PEAK_FLOPS[max(known, key=len)] if known else None
