"""What to load, as JSON, in; samples a second of the public `lerobot` out. Needs lerobot, nothing of this project.

`bench_loader` runs it, perhaps by another Python: lerobot asks for other versions of what this project stands on.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time


def main(arguments: list[str]) -> int:
    """With --there: 0 where lerobot can be imported. With JSON: prints samples a second."""
    if importlib.util.find_spec("lerobot") is None:
        return 1
    if arguments == ["--there"]:
        return 0
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from torch.utils.data import DataLoader, RandomSampler

    asked = json.loads(arguments[0])
    torch.set_num_threads(1)
    times = dict.fromkeys(asked["cameras"], asked["frames_s"]) | {"action": asked["chunk_s"]}
    data = LeRobotDataset("local/set", root=asked["folder"], video_backend="pyav", delta_timestamps=times)
    count = (asked["warm_up"] + asked["batches"]) * asked["batch_size"]
    sampler = RandomSampler(data, replacement=True, num_samples=count, generator=torch.Generator().manual_seed(0))
    batches = iter(DataLoader(data, batch_size=asked["batch_size"], sampler=sampler, num_workers=asked["workers"]))
    for _ in range(asked["warm_up"]):
        next(batches)
    started = time.perf_counter()
    samples = sum(len(batch["action"]) for batch in batches)
    print(samples / (time.perf_counter() - started))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
