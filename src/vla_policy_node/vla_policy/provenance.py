"""A command in, where its result comes from out: command, git commit, versions, date."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch


def provenance(program: str, arguments: Sequence[str] | None) -> dict[str, str]:
    """What to note beside every result. The commit ends in `+changes` where the tree differs from it.

    program: name of the command, as in `ros2 run PACKAGE PROGRAM`. arguments: None for those of this
    process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join([program, *words]),
        "commit": git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
    }


def git_commit() -> str:
    """The commit of the source tree, or `unknown` outside of one."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
