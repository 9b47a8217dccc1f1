"""The set-up script and the test of the environment say what is missing and leave with code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT, ENV_TEST = ROOT / "scripts" / "setup_calvin.sh", ROOT / "eval" / "calvin" / "env_test.py"
PARTS = ("calvin_models/conf/annotations/new_playtable_validation.yaml",
         "calvin_env/calvin_env/envs/play_table_env.py",
         "calvin_env/data/calvin_table_D/urdf/calvin_table_D.urdf")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CALVIN_")}
    return subprocess.run([str(word) for word in command], env=clean | environment, capture_output=True, text=True,
                          timeout=120)


@pytest.mark.parametrize(("parts", "words"), [
    (0, "is no checkout of mees/calvin"),
    (1, "submodule update --init calvin_env"),
    (2, "data is not whole")])
def test_the_script_names_what_a_checkout_lacks(tmp_path: Path, parts: int, words: str) -> None:
    for part in PARTS[:parts]:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).touch()
    done = run("bash", SCRIPT, tmp_path)
    assert done.returncode == 1 and words in done.stderr


def test_the_script_tells_what_to_clone_and_where() -> None:
    done = run("bash", SCRIPT)
    assert done.returncode == 1
    assert "git clone --recurse-submodules https://github.com/mees/calvin.git ~/calvin" in done.stderr
    assert "got '--root'" in run("bash", SCRIPT, "--root").stderr
    assert run("bash", SCRIPT, "--help").stdout.startswith("usage: scripts/setup_calvin.sh")
    assert "sudo" not in SCRIPT.read_text()


def test_the_test_of_the_environment_fails_in_one_line_without_calvin(tmp_path: Path) -> None:
    done = run(sys.executable, ENV_TEST, CALVIN_ROOT=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "got no such folder" in done.stderr and "Traceback" not in done.stderr
