"""Nothing in, where a result comes from out: command, git commit, versions, date."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch


def provenance() -> dict[str, str]:
    """What to note beside every result. The commit ends in `+changes` where the tree differs from it."""
    return {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), "commit": git_commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
            "torch": torch.__version__, "threads": str(torch.get_num_threads())}


def git_commit() -> str:
    """The commit of the source tree, or `unknown` outside of one."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True,
                          timeout=10).stdout.strip()

