"""Micro batches in, one step of the optimizer out: forward, backward, clipping, averaging, over all processes alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from vla_policy.errors import VlaError
from vla_policy.model.vla import VLAModel
from vla_training.config import TrainingConfig
from vla_training.training.objective import MicroBatch, Objective
from vla_training.training.optimization import AveragedWeights, make_optimizer
from vla_training.training.sharding import gathered, shard, without_weights

Parts = dict[str, Tensor]


class Stepper:
    """A model with its optimizer and averaged weights, wrapped for one process or many."""

    def __init__(self, accelerator: Accelerator, model: VLAModel, config: TrainingConfig) -> None:
        self.accelerator, self.model, self._clip = accelerator, model, config.gradient_clip
        self._objective = Objective(model, config.losses)
        self._without_weights = None
        if config.parallel == "fsdp2":
            self._without_weights = without_weights(model)
            self._wrapped = shard(self._objective, accelerator)
            self.optimizer = accelerator.prepare(make_optimizer(model, config.learning_rate, config.weight_decay))
        else:
            optimizer = make_optimizer(model, config.learning_rate, config.weight_decay)
            self._wrapped, self.optimizer = accelerator.prepare(self._objective, optimizer)
        self.average = AveragedWeights(model, config.ema_decay) if config.ema_decay is not None else None
        # Wrappers average gradients over the processes, DeepSpeed over micro batches too, where a sum is wanted: what
        # is summed is divided by the counts of all of them already.
        self.deepspeed = accelerator.distributed_type is DistributedType.DEEPSPEED
        self._gradient_scale = accelerator.num_processes * (config.accumulation_steps if self.deepspeed else 1)
        self._cast = self.deepspeed and config.precision == "bf16"

    def optimize(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> tuple[Parts, Parts, float]:
        """One step. Returns this process' sums and the counts of all processes by part of the loss, and the norm of the
        gradient before clipping.
        """
        accelerator = self.accelerator
        counts = self.reduced(_added(batch.counts for batch in micro_batches))
        self.model.train()
        sums = []
        for number, batch in enumerate(micro_batches, 1):
            last = accelerator.sync_gradients = number == len(micro_batches)
            with nullcontext() if last else accelerator.no_sync(self._wrapped):
                parts = self._forward(batch)
                accelerator.backward(self._objective.total(parts, counts) * self._gradient_scale)
            sums.append({name: value.detach() for name, value in parts.items()})
        norm = accelerator.clip_grad_norm_(self._wrapped.parameters(), self._clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average and not self.optimizer.step_was_skipped:
            self.average.update(self.model)
        return _added(sums), counts, 0.0 if norm is None else float(norm)

    def _forward(self, batch: MicroBatch) -> Parts:
        device = self.accelerator.device
        with torch.autocast(device.type, torch.bfloat16) if self._cast else nullcontext():
            return self._wrapped(batch.to(device))

    @torch.no_grad()
    def evaluate(self, batches: Iterable[MicroBatch]) -> dict[str, float]:
        """Mean losses of the averaged weights over the batches of all processes, each of which must have as many."""
        sums, counts = [], []
        with self.averaged():
            for batch in batches:
                sums.append(self._forward(batch))
                counts.append(batch.counts)
        return self.means(self.reduced(_added(sums)), self.reduced(_added(counts)))

    @contextmanager
    def averaged(self) -> Iterator[VLAModel]:
        """The model with its averaged weights, in evaluation mode, for as long as the body runs."""
        self.model.eval()
        try:
            with self.average.applied(self.model) if self.average else nullcontext():
                yield self.model
        finally:
            self.model.train()

    @contextmanager
    def whole(self) -> Iterator[VLAModel | None]:
        """The model with all its weights, in the first process; None in the others. All of them must ask for it."""
        main = self.accelerator.is_main_process
        if self._without_weights is None:
            yield self.model if main else None
            return
        state = gathered(self.model, keep=main)
        if not main:
            yield None
            return
        model = copy.deepcopy(self._without_weights)
        model.load_state_dict(state, assign=True)
        yield model.eval()

    def together(self, action: Callable[[], None]) -> None:
        """Every process acts, and all of them fail where one does. Raises: VlaError."""
        problem = None
        try:
            action()
        except VlaError as error:
            problem = error
        failed = int(self.reduced({"failed": torch.tensor(float(problem is not None))})["failed"])
        if problem:
            raise problem
        if failed:
            raise VlaError(f"stopped, as {failed} of {self.accelerator.num_processes} processes failed; see what they "
                           "say")

    def means(self, sums: Parts, counts: Parts) -> dict[str, float]:
        """Every part of the loss, and `loss`, their weighed sum."""
        means = {name: float(value / counts[name].clamp(min=1)) for name, value in sums.items()}
        return means | {"loss": float(self._objective.total(sums, counts))}

    def reduced(self, values: Mapping[str, Tensor]) -> Parts:
        """Scalars, each summed over all processes; on the device, float64."""
        shared = torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values.values()])
        return dict(zip(values, self.accelerator.reduce(shared.to(self.accelerator.device), "sum"), strict=True))


def _added(parts: Iterable[Mapping[str, Tensor]]) -> Parts:
    total: Parts = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else value
    return total
