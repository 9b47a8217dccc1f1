"""A policy, the amounts of new and old data and a machine's memory in, settings of a training run with reasons out.

The rules are rules of thumb, each said in the sentence that goes with it; a training file written by them can be edited
and run by `train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vla_policy.checkpoint import Bundle
from vla_training.adapt.config import AdaptConfig
from vla_training.adapt.parts import parts_of
from vla_training.adapt.suggest import FROZEN_BYTES, GIB, STATE_SHARE, TRAINED_BYTES, suggest
from vla_training.finetuning.amount import Amount

SMALL_WEIGHTS = 50_000_000  # up to here a model is trained whole, without recomputing anything
PASSES = 40  # how often a run sees what the policy would have seen in the new episodes
STEPS = (200, 20_000)  # at least, at most
EPISODES_TO_VALIDATE = 10  # with fewer, all are learnt from
RATE_SHARE = 0.4  # of the learning rate that the policy was trained with
LORA_RATE = 2e-4
UNKNOWN_RATE = 2e-5  # where a bundle does not tell what it was trained with
KEPT = ("losses", "augmentation", "weight_decay", "gradient_clip", "precision", "threads", "workers")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person said in place of the rules; None: nothing. minutes: a further budget."""

    steps: int | None = None
    learning_rate: float | None = None
    minutes: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """training: the section of a training file. reasons: a sentence a choice."""

    training: dict[str, Any]
    reasons: tuple[str, ...]


def choose_recipe(bundle: Bundle, start: str, new: Amount, old: tuple[Amount, ...], memory_gib: float,
                  wishes: Wishes) -> Recipe:
    """How to go on from `bundle`, which lies at `start`. memory_gib: of the device that trains.

    Raises: ConfigError where not even adapters fit into the memory.
    """
    adapt, adapt_words = _adapt(bundle, memory_gib)
    weight, data_words = _weight(new, old)
    frames_per_step, batches, batch_words = _batches(bundle, adapt)
    steps, step_words = _steps(new, frames_per_step, bool(old), wishes)
    rate, rate_words = _rate(bundle, adapt, wishes)
    held_out = 0.1 if new.episodes >= EPISODES_TO_VALIDATE else 0.0
    known = bundle.file.training
    training = {
        **{name: known[name] for name in KEPT if name in known},
        **batches,
        "datasets": [{"path": new.path}, *({"path": one.path, "weight": weight} for one in old)],
        "start": start,
        "steps": steps,
        "learning_rate": rate,
        "warmup_ratio": 0.05,
        "ema_decay": round(1.0 - 1.0 / max(20, steps // 6), 4),
        "adapt": adapt.model_dump(mode="json", exclude_defaults=True),
        "validation_share": held_out,
        "validate_every": max(1, steps // 4),
        "export_every": max(1, steps // 2),
        "seed": wishes.seed,
    } | ({"max_minutes": wishes.minutes} if wishes.minutes else {})
    held_words = ("one in ten of the episodes is held out, to see whether it still learns" if held_out else
                  f"nothing is held out of {new.episodes} episodes; from {EPISODES_TO_VALIDATE} on a tenth would be")
    return Recipe(training, (adapt_words, data_words, batch_words, step_words, rate_words, held_words))


def _adapt(bundle: Bundle, memory_gib: float) -> tuple[AdaptConfig, str]:
    weights = sum(weight.numel() for group in parts_of(bundle.model).values() for weight in group)
    size = f"{weights / 1e6:.2f} M weights" if weights < 1e9 else f"{weights / 1e9:.2f} B weights"
    if weights <= SMALL_WEIGHTS:
        needed_mb = weights * TRAINED_BYTES / 2**20
        return AdaptConfig(), f"all {size} are trained: {needed_mb:.0f} MB with gradients and optimizer"
    chosen = suggest(bundle.model, memory_gib)
    whole_gib = weights * TRAINED_BYTES / STATE_SHARE / GIB
    room = f"all of them would need {whole_gib:.1f} GiB, there are {memory_gib:.1f}"
    if chosen.lora:
        return chosen, (f"LoRA of rank {chosen.lora.rank} beside {size} that stay as they are "
                        f"({weights * FROZEN_BYTES / GIB:.1f} GiB): {room}")
    if chosen.freeze:
        return chosen, f"{', '.join(chosen.freeze)} stays as it is, the rest of {size} is trained: {room}"
    return chosen, f"all {size} are trained, activations are computed twice to save memory: {room}"


def _weight(new: Amount, old: tuple[Amount, ...]) -> tuple[float, str]:
    """Weight of a frame of old data, so that the new data is half of what is drawn."""
    if not old:
        return 1.0, ("only the new episodes are learnt from; what the policy could do before it may forget: "
                     "with:=DATASET lets it rehearse")
    frames = sum(one.frames for one in old)
    return round(new.frames / frames, 4), (f"half of what is drawn is new, half is rehearsed: {frames} frames of "
                                           f"{', '.join(one.path for one in old)}")


def _batches(bundle: Bundle, adapt: AdaptConfig) -> tuple[float, dict[str, Any], str]:
    """Frames of a step, its settings, and the words."""
    window = bundle.config.history_length
    if adapt.activation_checkpointing:
        return 32.0 * window, {"batch_size": 32, "accumulation_steps": 8}, (
            f"batches of 32 windows of {window} frames, 4 of them at a time")
    if window == 1:
        return 64.0, {"batch_size": 64}, "batches of 64 frames"
    stages = [{"until": 0.6, "window": 1, "batch_size": 64}, {"until": 1.0, "window": window, "batch_size": 10}]
    return 0.6 * 64 + 0.4 * 10 * window, {"stages": stages}, (
        f"first batches of 64 single frames, which are varied and cheap, then of 10 windows of {window}")


def _steps(new: Amount, frames_per_step: float, rehearses: bool, wishes: Wishes) -> tuple[int, str]:
    if wishes.steps is not None:
        return wishes.steps, f"{wishes.steps} steps, as asked"
    share = 0.5 if rehearses else 1.0
    wanted = round(PASSES * new.looks / (share * frames_per_step))
    steps = min(max(wanted, STEPS[0]), STEPS[1])
    words = f"{steps} steps: the policy would have looked {new.looks} times in the new episodes, it sees each about " \
            f"{steps * share * frames_per_step / new.looks:.0f} times"
    return steps, words


def _rate(bundle: Bundle, adapt: AdaptConfig, wishes: Wishes) -> tuple[float, str]:
    if wishes.learning_rate is not None:
        return wishes.learning_rate, f"learning rate {wishes.learning_rate:g}, as asked"
    if adapt.lora:
        return LORA_RATE, f"learning rate {LORA_RATE:g}: adapters begin at nothing and learn fast"
    trained_with = bundle.file.training.get("learning_rate")
    if trained_with is None:
        return UNKNOWN_RATE, f"learning rate {UNKNOWN_RATE:g}: the bundle does not tell what it was trained with"
    rate = float(f"{RATE_SHARE * float(trained_with):.2g}")
    return rate, f"learning rate {rate:g}: {RATE_SHARE:g} of what the policy was trained with"
