"""The set-up script and the test of the environment say what is missing and leave with code 1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simpler_double import write_checkout

from sim_bridges.simpler.protocol import TASKS

ROOT = Path(__file__).resolve().parents[3]
SCRIPT, ENV_TEST = ROOT / "scripts" / "setup_simplerenv.sh", ROOT / "eval" / "simpler" / "env_test.py"
DRIVER = ROOT / "eval" / "simpler" / "software_vulkan.c"
PARTS = ("simpler_env/__init__.py", "ManiSkill2_real2sim/mani_skill2_real2sim/envs/custom_scenes/base_env.py",
         "ManiSkill2_real2sim/data/custom/info_pick_custom_v0.json")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIMPLER_", "MS2_"))}
    return subprocess.run([str(word) for word in command], env=clean | environment, capture_output=True, text=True,
                          timeout=120)


@pytest.mark.parametrize(("parts", "words"), [
    (0, "is no checkout of simpler-env/SimplerEnv"),
    (1, "submodule update --init --recursive"),
    (2, "data is not whole"),
    (3, "name an environment of its own, as\n    scripts/setup_simplerenv.sh --venv .venv-simpler")])
def test_the_script_names_what_a_checkout_lacks(tmp_path: Path, parts: int, words: str) -> None:
    for part in PARTS[:parts]:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).touch()
    done = run("bash", SCRIPT, tmp_path)
    assert done.returncode == 1 and words in done.stderr


def test_the_script_tells_what_to_clone_and_where() -> None:
    done = run("bash", SCRIPT)
    assert done.returncode == 1
    assert "git clone --recurse-submodules https://github.com/simpler-env/SimplerEnv.git ~/SimplerEnv" in done.stderr
    assert "got '--root'" in run("bash", SCRIPT, "--root").stderr
    assert run("bash", SCRIPT, "--help").stdout.startswith("usage: scripts/setup_simplerenv.sh")
    assert "sudo" not in SCRIPT.read_text()


def test_an_environment_of_another_python_is_refused(tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).touch()
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.13\n")
    python.chmod(0o755)
    done = run("bash", SCRIPT, "--venv", tmp_path / "venv", tmp_path)
    assert done.returncode == 1 and "is of Python 3.13; SAPIEN 2 has wheels up to 3.11" in done.stderr


@pytest.mark.parametrize(("root", "words"), [
    ("nowhere", "got no such folder"), ("empty", "submodule update")])
def test_the_test_of_the_environment_fails_in_one_line(tmp_path: Path, root: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run(sys.executable, ENV_TEST, SIMPLER_ROOT=str(tmp_path / root))
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


def test_it_lists_which_variants_a_checkout_has_the_data_for(tmp_path: Path) -> None:
    write_checkout(tmp_path, TASKS["widowx_stack_cube"].sets["visual_matching"][0])
    done = run(sys.executable, ENV_TEST, "--list", SIMPLER_ROOT=str(tmp_path))
    assert done.returncode == 1
    assert "widowx_stack_cube/visual_matching/base: whole" in done.stdout
    assert "widowx_put_eggplant_in_basket/visual_matching/base: no hab2_bench_assets/stages/bridge_table_1_v2.glb" in (
        done.stdout)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler (cc) on this machine")
def test_the_software_driver_compiles_without_a_warning(tmp_path: Path) -> None:
    done = run("cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", DRIVER, "-o",
               tmp_path / "driver.so", "-ldl")
    assert done.returncode == 0, done.stderr
