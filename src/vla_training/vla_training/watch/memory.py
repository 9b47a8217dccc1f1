"""Nothing in, how much memory this process uses out."""

from __future__ import annotations

import psutil
import torch

GIB = 2**30


def memory_gib() -> dict[str, float]:
    """`rss`: resident memory of this process and its children, pages they share counted for each [GiB];
    `gpu`, where CUDA is in use: the most that tensors have held on this process's GPU [GiB].
    """
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it has ended since it was listed
            continue
    used = {"rss": total / GIB}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        used["gpu"] = torch.cuda.max_memory_allocated() / GIB
    return used
