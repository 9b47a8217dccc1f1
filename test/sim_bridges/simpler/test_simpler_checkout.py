"""What is refused before anything is built: no checkout, missing data, another numpy, no driver, no ManiSkill data."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from simpler_double import write_checkout

from sim_bridges.simpler import genuine, twins, vulkan
from sim_bridges.simpler.checkout import find_checkout
from sim_bridges.simpler.genuine import chosen_shader, import_genuine
from sim_bridges.simpler.protocol import TASKS
from vla_policy.errors import ConfigError

CARROT = TASKS["widowx_carrot_on_plate"].sets["visual_matching"][0]
DRAWER = TASKS["google_robot_open_top_drawer"].sets["visual_matching"][0]


def test_without_a_root_it_says_what_to_clone_and_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_bridges.simpler.checkout.installed_root", lambda package: None)
    with pytest.raises(ConfigError, match="SIMPLER_ROOT is not set.*git clone --recurse-submodules https://github.com/"
                                          "simpler-env/SimplerEnv.git.*setup_simplerenv.sh.*TASK/twins"):
        find_checkout({})


def test_an_installed_package_is_its_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkout = write_checkout(tmp_path, CARROT)
    monkeypatch.setattr("sim_bridges.simpler.checkout.installed_root", lambda package: checkout.real2sim)
    assert find_checkout({}) == checkout


def test_each_missing_part_of_a_checkout_has_its_command(tmp_path: Path) -> None:
    root = tmp_path / "SimplerEnv"
    with pytest.raises(ConfigError, match="got no such folder, expected a checkout of simpler-env/SimplerEnv"):
        find_checkout({"SIMPLER_ROOT": str(root)})
    root.mkdir()
    with pytest.raises(ConfigError, match=f"git -C {root} submodule update --init --recursive"):
        find_checkout({"SIMPLER_ROOT": str(root)})
    (root / "ManiSkill2_real2sim/mani_skill2_real2sim/envs/custom_scenes").mkdir(parents=True)
    (root / "ManiSkill2_real2sim/mani_skill2_real2sim/envs/custom_scenes/base_env.py").touch()
    with pytest.raises(ConfigError, match="checkout HEAD -- data, or correct MS2_REAL2SIM_ASSET_DIR"):
        find_checkout({"SIMPLER_ROOT": str(root)})
    data = tmp_path / "elsewhere"
    (data / "custom").mkdir(parents=True)
    assert find_checkout({"SIMPLER_ROOT": str(root), "MS2_REAL2SIM_ASSET_DIR": str(data)}).data == data


@pytest.mark.parametrize("lost", [
    "hab2_bench_assets/stages/bridge_table_1_v1.glb", "custom/models/bridge_plate_objaverse_larger/collision.obj",
    "custom/models/bridge_carrot_generated_modified/textured.dae", "real_inpainting/bridge_real_eval_1.png"])
def test_a_missing_mesh_or_photo_is_named(tmp_path: Path, lost: str) -> None:
    checkout = write_checkout(tmp_path, CARROT)
    checkout.check_data(CARROT)
    (checkout.data / lost).unlink()
    with pytest.raises(ConfigError, match=f"got no {lost}, expected the data that PutCarrotOnPlateInScene-v0 loads"):
        checkout.check_data(CARROT)


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    checkout = write_checkout(tmp_path)
    with pytest.raises(ConfigError, match="mk_station_recolor.urdf, .*open_drawer_a0.png.* and 5 more"):
        checkout.check_data(DRAWER)


def test_numpy_2_is_refused_because_it_would_be_wrong_in_silence(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = write_checkout(tmp_path)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(ConfigError, match="got numpy 2.4.6, expected 1.26.*fall through the table"):
        import_genuine(checkout)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = write_checkout(tmp_path)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "mani_skill2_real2sim", None)  # importing it fails
    with pytest.raises(ConfigError, match="ManiSkill2_real2sim cannot be imported on Python .*sapien==2.2.2"):
        import_genuine(checkout)


def test_another_checkout_that_was_imported_before_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = write_checkout(tmp_path)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ("mani_skill2_real2sim", "mani_skill2_real2sim.envs", "mani_skill2_real2sim.utils",
             "mani_skill2_real2sim.utils.registration")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[0]].envs, sys.modules[names[1]].__file__ = sys.modules[names[1]], "/other/envs/__init__.py"
    sys.modules[names[3]].make = lambda *_: None
    with pytest.raises(ConfigError, match="got /other/envs/__init__.py, expected that of"):
        import_genuine(checkout)


def test_a_shader_that_does_not_exist_names_the_known() -> None:
    assert chosen_shader({}) == "" and chosen_shader({"SIMPLER_SHADER": "ibl"}) == "ibl"
    with pytest.raises(ConfigError, match="SIMPLER_SHADER: got 'rtx'; did you mean 'rt'"):
        chosen_shader({"SIMPLER_SHADER": "rtx"})


def test_no_vulkan_loader_and_no_driver_name_the_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="got no libnothing.so.*bookworm-backports mesa-vulkan-drivers"):
        vulkan.check_vulkan(("libnothing.so",))

    class Loader:
        """A loader without a driver: no instance can be made."""

        @staticmethod
        def vkCreateInstance(*_: object) -> int:  # noqa: N802 - Vulkan's name
            return -9

    monkeypatch.setattr(vulkan.ctypes, "CDLL", lambda name: Loader)
    with pytest.raises(ConfigError, match="got no device, .*bookworm-backports mesa-vulkan-drivers"):
        vulkan.check_vulkan()


def test_what_sapien_says_is_explained() -> None:
    assert "lacks an extension" in str(vulkan.explain(RuntimeError("vk::createDevice: ErrorExtensionNotPresent")))
    assert "mesa-vulkan-drivers" in str(vulkan.explain(RuntimeError("vk::createInstance: ErrorIncompatibleDriver")))


def test_a_driver_that_refuses_ends_in_words(tmp_path: Path) -> None:
    def make(*_: object, **__: object) -> None:
        raise RuntimeError("vk::PhysicalDevice::createDeviceUnique: ErrorExtensionNotPresent")

    from sim_bridges.simpler.addresses import find_scene
    from sim_bridges.simpler.robots import WIDOWX

    world = genuine.GenuineWorld(WIDOWX, write_checkout(tmp_path, CARROT), make)
    with pytest.raises(ConfigError, match="lacks an extension"):
        world.begin(find_scene("widowx_carrot_on_plate", 0, WIDOWX))


def test_maniskills_missing_data_has_its_command(tmp_path: Path) -> None:
    (tmp_path / "robots/widowx").mkdir(parents=True)
    (tmp_path / "robots/widowx/wx250s.urdf").touch()
    with pytest.raises(ConfigError, match="got no bridge_v2_real2sim, .*download_asset bridge_v2_real2sim$"):
        twins.check_assets(tmp_path)
    (tmp_path / twins.ASSETS["bridge_v2_real2sim"]).mkdir(parents=True)
    twins.check_assets(tmp_path)


def test_a_missing_maniskill_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mani_skill", None)
    with pytest.raises(ConfigError, match="pip install mani-skill==3.0.1"):
        twins.import_maniskill()
