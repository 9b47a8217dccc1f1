"""Two processes on gloo: every backbone, sharded by its units, has half its weights in each and the same gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # two fresh processes on a loaded machine
TIME_LIMIT_S = 550
HERE = Path(__file__).parent


def test_sharded_by_its_units_each_backbone_has_the_gradients_of_the_whole() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(HERE / "sharded_ranks.py")]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
                           capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
