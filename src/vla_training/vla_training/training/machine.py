"""A training config and a device in, Hugging Face Accelerate set up for them out; what cannot be done here is refused.

How many processes there are, on how many machines, is told by `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import importlib.util
import json
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DeepSpeedPlugin

from vla_policy.errors import ConfigError, nearest
from vla_training.config import Stage, TrainingConfig

DEVICES = ("cpu", "cuda")
# The others wait for the first process, which may decode videos for hours; where one dies its launcher ends all.
PATIENCE = timedelta(hours=12)
ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(config: TrainingConfig, device: str) -> Accelerator:
    """Join the other processes, where there are any, and take this one's device.

    Raises: ConfigError where device, precision, sharding or DeepSpeed cannot be had here.
    """
    check_device(device, config.precision)
    # Accelerate keeps one set of settings a process; a second run in it brings its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device == "cpu",
        # DeepSpeed would turn the weights themselves into bf16; the stepper does what Accelerate does elsewhere.
        mixed_precision="no" if config.deepspeed else ACCELERATE_PRECISION[config.precision],
        deepspeed_plugin=deepspeed_plugin(config, device) if config.deepspeed else None,
        kwargs_handlers=[
            # Parts of a backbone that a loss does not reach (a language head, the pointing head) get no gradient.
            DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    torch.set_num_threads(config.threads)
    if config.parallel == "fsdp2" and accelerator.num_processes == 1:
        raise ConfigError("parallel fsdp2: got one process, expected several to share the weights; start them with "
                          "`torchrun --nproc-per-node N -m vla_training.train …`, or use parallel ddp")
    return accelerator


def check_device(device: str, precision: str) -> None:
    """Raises: ConfigError for a device that is not here, or one that cannot compute in `precision`."""
    if device not in DEVICES:
        raise ConfigError(f"--device: got '{device}'; {nearest(device, DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no GPU that PyTorch can use here; use --device cpu, or install a driver and "
                          f"a PyTorch built for it (this one is {torch.__version__})")
    if device == "cpu" and precision == "fp16":
        raise ConfigError("precision fp16: got a CPU, expected a GPU, as its small numbers need a loss scaler there; "
                          "use bf16 or fp32")
    if device == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"precision bf16: {torch.cuda.get_device_name()} cannot compute in it; use fp16 or fp32")


def check_batches(stages: tuple[Stage, ...], config: TrainingConfig, processes: int) -> None:
    """Raises: ConfigError where a batch does not fall into equal pieces for the processes and their micro batches."""
    pieces = processes * config.accumulation_steps
    sizes = [("batch_size", stage.batch_size) for stage in stages]
    for name, size in [*sizes, ("scene_batch_size", config.scene_batch_size)]:
        if size % pieces:
            raise ConfigError(f"{name}: got {size} for {processes} processes with {config.accumulation_steps} micro "
                              f"batches each, expected a multiple of {pieces}; use {-(-size // pieces) * pieces}")


def deepspeed_plugin(config: TrainingConfig, device: str) -> DeepSpeedPlugin:
    """DeepSpeed by its JSON file; batch sizes, clipping and accumulation are those of the training config.

    Raises: ConfigError where the package, a GPU or the file is missing, or the file is not one of DeepSpeed.
    """
    path = Path(config.deepspeed)
    if not path.is_file():
        raise ConfigError(f"deepspeed: {path}: no such file")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ConfigError(f"deepspeed: {path}: not JSON: {problem}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise ConfigError(f"deepspeed: {path}: got no zero_optimization, expected at least "
                          '{"zero_optimization": {"stage": 2}}')
    stage = settings["zero_optimization"].get("stage")
    if stage not in (0, 1, 2):
        raise ConfigError(f"deepspeed: {path}: got zero_optimization.stage {stage}, expected 0, 1 or 2; to split the "
                          "weights themselves use parallel fsdp2")
    if device != "cuda":
        raise ConfigError("deepspeed: got --device cpu, expected GPUs; use --device cuda on a machine with some, or "
                          "parallel fsdp2")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("deepspeed: the package is not installed; pip install deepspeed, or use parallel fsdp2")
    return plugin_of(settings, config)


def plugin_of(settings: dict[str, object], config: TrainingConfig) -> DeepSpeedPlugin:
    """The plugin of a DeepSpeed file's settings; those that the training config owns are set from it."""
    owned = {"gradient_clipping": config.gradient_clip, "gradient_accumulation_steps": config.accumulation_steps,
             "train_micro_batch_size_per_gpu": 1, "train_batch_size": "auto"}
    return DeepSpeedPlugin(hf_ds_config=settings | owned)
