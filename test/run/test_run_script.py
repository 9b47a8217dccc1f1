"""In: ./run with stand-ins for Python, apt-get and sudo. Out: proof of its refusals and choices."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "\n[[ ${1:-} == --cuda ]]"  # where the functions end and the verbs begin

# Answers what ./run asks a Python: its version, its headers, a module, a library.
PYTHON = """#!/bin/bash
case $2 in
  *version_info*) echo {version} ;;
  *sysconfig*) echo {folder} ;;
  *CDLL*) exit {library_missing} ;;
  *) exit 0 ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with ./run alone, and a folder bin/ that comes first on its PATH."""
    shutil.copy(ROOT / "run", tmp_path / "run")
    (tmp_path / "bin").mkdir()
    (tmp_path / "Python.h").touch()
    return tmp_path


def program(clone: Path, name: str, text: str) -> None:
    """Put an executable into the clone's bin/."""
    path = clone / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def python(clone: Path, version: str = "3.12", library_missing: int = 0) -> None:
    """Put a Python that answers like this into the clone's bin/, under all names."""
    text = PYTHON.format(version=version, folder=clone, library_missing=library_missing)
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        program(clone, name, text)


def bash(clone: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run bash in the clone; nothing of the workspace's environment but PATH."""
    path = f"{clone}/bin:/usr/bin:/bin"
    return subprocess.run(
        ["bash", *words],
        env={"PATH": path, "HOME": str(clone), **env},
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
    )


def functions(clone: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has the functions of ./run."""
    text, separator, _ = (clone / "run").read_text().partition(MAIN)
    assert separator, f"./run has no line that begins with {MAIN.strip()!r}"
    (clone / "functions").write_text(text)
    return bash(clone, "-c", f"source {clone}/functions\n{script}", **env)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "got the verb 'fly', expected demo, test, shell, setup or help"),
        (["demo", "--episode", "3"], "got '--episode' for ./run demo; expected --episodes N, --seed S"),
        (["demo", "--seed"], "got --seed without a value; expected: --seed VALUE"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_installed(
    clone: Path, words: list[str], message: str
) -> None:
    result = bash(clone, "run", *words)
    assert result.returncode == 1
    assert f"error: {message}" in result.stderr
    assert not (clone / ".venv").exists() and not (clone / "log").exists()


def test_help_names_every_verb(clone: Path) -> None:
    result = bash(clone, "run", "help")
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in ("demo", "test", "shell", "setup", "--cuda"))


def test_a_python_that_is_too_old_is_refused(clone: Path) -> None:
    python(clone, version="3.9")
    result = bash(clone, "run", "setup")
    assert result.returncode == 1
    assert "got python3 = Python 3.9" in result.stderr
    assert (
        "expected Python 3.11, 3.12 or 3.13. Install one, for example with 'sudo apt-get install"
        in result.stderr
    )


def test_pythons_that_do_not_run_are_passed_over(clone: Path) -> None:
    """pyenv puts a python3.13 on PATH that only prints an error."""
    python(clone, version="3.11")
    for name in ("python3", "python3.13", "python3.12"):
        program(clone, name, "#!/bin/bash\necho 'pyenv: command not found' >&2; exit 127\n")
    result = functions(clone, 'pick_python; echo "$python $version"')
    assert result.stdout == f"{clone}/bin/python3.11 3.11\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_gl_library_is_installed_by_root(clone: Path) -> None:
    python(clone, library_missing=1)
    program(clone, "apt-get", f'#!/bin/bash\necho "$@" >>{clone}/asked\n')
    program(clone, "apt-cache", "#!/bin/bash\n")
    result = functions(clone, "python=python3 version=3.12; install_system_packages")
    assert result.returncode == 0, result.stderr
    asked = (clone / "asked").read_text().splitlines()
    assert asked[0] == "update"
    assert asked[1].startswith("install -y") and asked[1].endswith("libosmesa6")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_egl_is_installed_where_osmesa_is_no_more(clone: Path) -> None:
    python(clone, library_missing=1)
    program(clone, "apt-get", f'#!/bin/bash\necho "$@" >>{clone}/asked\n')
    program(clone, "apt-cache", "#!/bin/bash\nexit 100\n")
    assert functions(clone, "python=python3 version=3.12; install_system_packages").returncode == 0
    assert (clone / "asked").read_text().splitlines()[1].endswith(" libegl1 libgl1-mesa-dri")


def test_a_failed_step_shows_its_log(clone: Path) -> None:
    result = functions(clone, 'step "big thing" 1 x bash -c "echo reason; exit 3"')
    assert result.returncode == 1
    assert "reason\n" in result.stderr
    assert (
        f"error: big thing failed with exit code 3 after 0 s; the whole log: {clone}/log/run/big_thing.log"
        in (result.stderr)
    )


def test_without_root_the_missing_packages_are_named(clone: Path) -> None:
    python(clone, library_missing=1)
    program(clone, "sudo", "#!/bin/bash\nexit 1\n")
    text = (clone / "run").read_text()
    (clone / "run").write_text(text.replace("((EUID))", "true"))  # EUID itself is read-only in bash
    result = functions(clone, "python=python3 version=3.12; install_system_packages")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert (
        "error: missing on this machine: libOSMesa.so.8 (or libEGL.so.1, or set MUJOCO_GL)" in result.stderr
    )
    assert "sudo apt-get install libosmesa6" in result.stderr


@pytest.mark.parametrize(
    ("torch", "asked"),
    [
        ("cpu", ["torch==1.2+cpu", "https://download.pytorch.org/whl/cpu", "torch==1.2"]),
        ("cuda", ["uninstall -qy torch", "torch==1.2"]),
        ("own", []),
    ],
)
def test_torch_comes_from_the_first_place_that_has_it(clone: Path, torch: str, asked: list[str]) -> None:
    (clone / "requirements").mkdir()
    (clone / "requirements" / "torch.txt").write_text("torch==1.2\n")
    python(clone)
    shutil.copytree(clone / "bin", clone / ".venv" / "bin")
    asking = f'#!/bin/bash\necho "$@" >>{clone}/asked\nexit 1\n'  # nothing has it
    (clone / ".venv" / "bin" / "python").write_text(asking)
    (clone / ".venv" / "bin" / "python").chmod(0o755)
    functions(clone, f"torch={torch}; install_torch || true")
    file = clone / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    assert [line.endswith(words) for line, words in zip(lines, asked, strict=True)] == [True] * len(asked)


def test_the_demo_passes_its_options_to_the_launch_file(clone: Path) -> None:
    script = """
    setup() { :; }
    exec() { printf '%s\\n' "$@"; }
    demo --episodes 3 --seed 7 --json some/file.json --headless"""
    words = functions(clone, script).stdout.splitlines()
    assert words[:4] == ["ros2", "launch", "vla_policy", "bringup.launch.py"]
    assert words[4].startswith(f"output:={clone}/outputs/demo/20")
    assert words[5:] == ["episodes:=3", "seed:=7", f"summary:={clone}/some/file.json", "headless:=true"]


def test_a_sourced_ros_distribution_is_used_as_it_is(clone: Path) -> None:
    python(clone)
    venv, elsewhere = clone / ".venv", clone.parent / "distribution"
    elsewhere.mkdir()
    shutil.copy(ROOT / "run", elsewhere / "ros2")
    script = (
        "python=python3 version=3.12; source_environment; "
        'echo "${PYTHONPATH:-none} ${AMENT_PREFIX_PATH:-none}"'
    )
    sourced = f"export PATH={elsewhere}:$PATH; {script}"
    kept = functions(clone, sourced, ROS_DISTRO="kilted").stdout
    assert kept == f"{venv}/lib/python3.12/site-packages none\n"  # no pip_ros, its own AMENT_PREFIX_PATH
    for without in (functions(clone, script), functions(clone, sourced)):
        assert without.stdout == f"{clone}/pip_ros {venv}\n"


def test_two_set_ups_at_once_wait_for_each_other(clone: Path) -> None:
    script = """
    pick_python() { echo in; sleep 0.3; echo out; }
    install_system_packages() { :; }; install_python_packages() { :; }; build_workspace() { :; }
    source_environment() { :; }; source_workspace() { :; }
    setup & setup & wait"""
    assert functions(clone, script).stdout.split() == ["in", "out", "in", "out"]


def test_the_patch_of_the_ros_wheels_names_folders_that_exist(tmp_path: Path) -> None:
    cmake = tmp_path / "share" / "some_msgs" / "export.cmake"
    cmake.parent.mkdir(parents=True)
    builder = "/opt/python/cp312-cp312"
    numpy_include = f"{builder}/lib/python3.12/site-packages/numpy/_core/include"
    cmake.write_text(f'set(x "{builder}/include/python3.12;{numpy_include};/other")')
    subprocess.run(["python", ROOT / "scripts" / "patch_ros_wheels.py", tmp_path], check=True)
    first, second, third = cmake.read_text().split('"')[1].split(";")
    assert (Path(first) / "Python.h").is_file() and (Path(second) / "numpy").is_dir() and third == "/other"


def test_only_what_is_missing_is_installed_beside_a_distribution(tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("# comment\npytest==0.0.1\nnumpy==1.0.0\nnot-there-at-all==9.9.9  # why\n")
    kept, missing = tmp_path / "kept.txt", tmp_path / "missing.txt"
    script = ROOT / "scripts" / "missing_requirements.py"
    subprocess.run(["python", script, kept, missing, wanted], check=True)
    assert [line.partition("==")[0] for line in kept.read_text().splitlines()] == ["pytest", "numpy"]
    assert "pytest==0.0.1" not in kept.read_text()
    assert missing.read_text() == "not-there-at-all\n"  # another numpy than the pinned one: no pin holds
