"""GPUs that need not be here: the figures that a plan needs, from their datasheets."""

from dataclasses import dataclass

from medtune.errors import ConfigError, Option

# Above the largest GPU there is; more is a typing error.
_MOST_GIB = 1024


@dataclass(frozen=True, slots=True)
class DescribedGpu:
    """A GPU: the memory that torch may use, in GiB, and its peak rates of dense 16-bit operations and bytes a second.

    A rate is None if it is not known.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]
    operations: float | None = None
    bandwidth: float | None = None


# NVIDIA's datasheets, for the boards with the most memory bandwidth that clouds rent out under these names.
GPUS = {
    "t4": DescribedGpu("T4", 14.56, (7, 5), 65e12, 320e9),
    "l4": DescribedGpu("L4", 22.0, (8, 9), 121e12, 300e9),
    "a100-40": DescribedGpu("A100 40 GB", 39.4, (8, 0), 312e12, 1555e9),
    "a100-80": DescribedGpu("A100 80 GB", 79.1, (8, 0), 312e12, 2039e9),
    "h100": DescribedGpu("H100", 79.1, (9, 0), 989e12, 3350e9),
    "h200": DescribedGpu("H200", 139.8, (9, 0), 989e12, 4800e9),
}


def described_gpu(text: str) -> DescribedGpu:
    """The GPU of a name in `GPUS`, or an Ampere GPU with that many GiB. Raises ConfigError."""
    if found := GPUS.get(text.lower()):
        return found
    try:
        memory = float(text.lower().removesuffix("gib"))
    except ValueError:
        memory = 0.0
    if not 0 < memory <= _MOST_GIB:
        raise ConfigError(Option("gpu", text), "unknown", f"give one of {', '.join(GPUS)}, or a number of GiB")
    return DescribedGpu(f"a GPU of {memory:g} GiB", memory, (8, 0))


def this_gpu() -> DescribedGpu | None:
    """The GPU of this process, with its free memory; None without one."""
    from medtune.runtime.hardware import choose_device, free_bytes, matrix_rate

    device = choose_device()
    if device.value == "cpu":
        return None
    import torch

    capability = torch.cuda.get_device_capability(device.value)
    memory = free_bytes(device.value) / 2**30
    return DescribedGpu(torch.cuda.get_device_name(device.value), memory, capability, matrix_rate(device.value))
