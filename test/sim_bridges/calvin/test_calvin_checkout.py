"""Where CALVIN is looked for, and what is said when a part of it is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sim_bridges.calvin.checkout import Checkout, chosen_scene, find_checkout
from sim_bridges.calvin.world import import_genuine, open_checkout
from vla_policy.errors import ConfigError

ENV_FILES = ("calvin_env/envs/play_table_env.py", "conf/config_data_collection.yaml")
ROOT_FILES = ("calvin_models/conf/callbacks/rollout/tasks/new_playtable_tasks.yaml",
              "calvin_models/conf/annotations/new_playtable_validation.yaml")
TABLE = "calvin_env/data/calvin_table_D/urdf/calvin_table_D.urdf"


def write(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a checkout, all empty."""
    return write(tmp_path, *(f"calvin_env/{name}" for name in ENV_FILES), *ROOT_FILES, TABLE, text="<robot/>")


def find(root: Path) -> Checkout:
    return find_checkout({"CALVIN_ROOT": str(root)})


def test_a_whole_checkout_is_taken(root: Path) -> None:
    found = find(root)
    assert found.env == root.resolve() / "calvin_env" and found.tasks.is_file() and found.sentences.is_file()
    found.check_scene("D")


def test_without_root_and_package_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_bridges.checkouts.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="CALVIN_ROOT is not set.*git clone --recurse-submodules.*setup_calvin.sh"):
        find_checkout({})


def test_an_installed_package_is_found_by_its_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write(root, "calvin_env/calvin_env/__init__.py") / "calvin_env/calvin_env"
    spec = type("Spec", (), {"origin": str(package / "__init__.py")})
    monkeypatch.setattr("sim_bridges.checkouts.find_spec", lambda name: spec)
    assert find_checkout({}).root == root.resolve()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CALVIN_ROOT=.*nowhere: got no such folder"):
        find(tmp_path / "nowhere")


def test_an_empty_submodule_names_the_command(root: Path) -> None:
    (root / "calvin_env" / ENV_FILES[0]).unlink()
    with pytest.raises(ConfigError, match="submodule update --init calvin_env"):
        find(root)


def test_calvin_env_alone_is_not_enough(root: Path) -> None:
    (root / ROOT_FILES[1]).unlink()
    with pytest.raises(ConfigError, match="new_playtable_validation.yaml, expected mees/calvin around"):
        find(root)


def test_a_checkout_without_data_is_refused(root: Path) -> None:
    (root / TABLE).unlink()
    with pytest.raises(ConfigError, match="got no table of scene D, expected CALVIN's data"):
        open_checkout(find(root))


def test_a_pointer_of_git_lfs_is_no_data(root: Path) -> None:
    write(root, TABLE, text="version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ConfigError, match="git lfs pull"):
        find(root).check_scene("D")


def test_a_scene_that_does_not_exist_is_refused() -> None:
    assert chosen_scene({}) == "D" and chosen_scene({"CALVIN_SCENE": "B"}) == "B"
    with pytest.raises(ConfigError, match="CALVIN_SCENE: got 'E'.*A, B, C, D"):
        chosen_scene({"CALVIN_SCENE": "E"})


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Call it with modules to be found by import; calvin_env is forgotten before and after."""
    genuine = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "calvin_env"}

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "calvin_env"]:
            del sys.modules[name]

    def replace(**modules: ModuleType | None) -> None:
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    forget()
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield replace
    forget()
    sys.modules.update(genuine)


def test_a_missing_pybullet_names_packages_python_and_numpy(root: Path, imports: Callable[..., None]) -> None:
    imports(hydra=ModuleType("hydra"), omegaconf=ModuleType("omegaconf"), pybullet=None)
    with pytest.raises(ConfigError, match=r"on Python 3\.\d+ with numpy \d.*pip install pybullet==3.2.7.*3.10"):
        import_genuine(find(root))


def fake_modules() -> dict[str, ModuleType]:
    return {name: ModuleType(name) for name in ("hydra", "omegaconf", "pybullet")}


def test_a_numpy_that_the_genuine_code_cannot_use_is_named(root: Path, imports: Callable[..., None]) -> None:
    write(root, f"calvin_env/{ENV_FILES[0]}", text="import numpy\nnumpy.no_such_alias\n")
    write(root, "calvin_env/calvin_env/__init__.py", "calvin_env/calvin_env/envs/__init__.py")
    imports(**fake_modules())
    with pytest.raises(ConfigError, match="with numpy .*no_such_alias"):
        import_genuine(find(root))


def test_a_pybullet_without_numpy_is_refused(root: Path, imports: Callable[..., None]) -> None:
    write(root, f"calvin_env/{ENV_FILES[0]}")
    write(root, "calvin_env/calvin_env/__init__.py", "calvin_env/calvin_env/envs/__init__.py")
    modules = fake_modules()
    modules["pybullet"].isNumpyEnabled = lambda: 0
    imports(**modules)
    with pytest.raises(ConfigError, match="built without numpy.*--only-binary"):
        import_genuine(find(root))
