"""Two processes train together: gradients are averaged, what both must see alike they do, one reads first."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from vla_training.parallel import Group

MEMBER = """
import sys, torch
from pathlib import Path
from vla_training.parallel import Group

group, file = Group.join(), Path(sys.argv[1])
model = torch.nn.Linear(2, 1)
for parameter in model.parameters():
    parameter.grad = torch.full_like(parameter, 1.0 + 2.0 * group.rank)
group.average_gradients(model)
assert all((parameter.grad == 2.0).all() for parameter in model.parameters())
assert group.largest(float(group.rank), 5.0 - group.rank) == [1.0, 5.0]
with group.first_alone():
    assert file.exists() == (group.rank > 0)
    file.write_text("decoded")
group.leave()
"""


def test_two_processes_agree(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(tmp_path / "cache")],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | shared | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        for member in members:
            _, complaint = member.communicate(timeout=100)
            assert member.returncode == 0, complaint
    finally:
        for member in members:
            member.kill()


def test_alone_a_group_does_nothing() -> None:
    group, model = Group.join(), torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.grad.clone()
    group.average_gradients(model)
    assert (group.rank, group.size) == (0, 1)
    assert torch.equal(model.weight.grad, before) and group.largest(0.5) == [0.5]
