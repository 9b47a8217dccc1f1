"""Bundles in, whole or damaged; out: the same policy bit by bit, or a sentence that names the bad file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from policies import bundle, model_file, tabletop
from safetensors.torch import load_file, save_file

from vla_policy.checkpoint import FILES, MANIFEST, check_fits, load_bundle, save_bundle
from vla_policy.contract import RobotContract, parse_contract
from vla_policy.errors import BundleError, ContractError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "bundle", bundle())
    return tmp_path / "bundle"


def sign_again(folder: Path) -> None:
    """Make the manifest agree with the files, as a careless hand would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_saved_and_loaded_is_equal_bit_by_bit(folder: Path) -> None:
    saved, loaded = bundle(), load_bundle(folder)
    weights = loaded.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in saved.model.state_dict().items())
    for part in ("file", "contract", "state_normalizer", "action_normalizer", "provenance", "instructions"):
        assert getattr(loaded, part) == getattr(saved, part)
    assert not loaded.model.training


def test_a_bundle_is_its_six_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*FILES, MANIFEST}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_saving_again_replaces_the_bundle(folder: Path) -> None:
    save_bundle(folder, dataclasses.replace(bundle(), provenance={"command": "second"}))
    assert load_bundle(folder).provenance == {"command": "second"}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_failed_save_leaves_the_old_bundle(folder: Path) -> None:
    unserialisable = dataclasses.replace(bundle(), provenance={"command": object()})
    with pytest.raises(Exception, match="serialize"):
        save_bundle(folder, unserialisable)
    assert load_bundle(folder).provenance == {"command": "none"}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_with_other_things_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(BundleError, match="expected a bundle or an empty place"):
        save_bundle(tmp_path, bundle())
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_normalisers_of_other_columns_are_not_saved(tmp_path: Path) -> None:
    whole = bundle()
    swapped = dataclasses.replace(whole, state_normalizer=whole.action_normalizer)
    with pytest.raises(BundleError, match="the state normaliser has columns"):
        save_bundle(tmp_path / "bundle", swapped)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"missing {name}.*copy the whole folder"):
        load_bundle(folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2],
                                    lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]],
                         ids=["truncated", "altered"])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(BundleError, match=f"{name}: truncated or altered: got .* expected sha256 .* copy"):
        load_bundle(folder)


@pytest.mark.parametrize(("change", "match"), [
    ({"format": "vla_policy bundle 99"}, "expected 'vla_policy bundle 1'"),
    ({"fils": {}}, "did you mean 'files'"), ({"files": {}}, "truncated or altered")])
def test_a_wrong_manifest_is_refused(folder: Path, change: dict[str, object], match: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | change
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=match):
        load_bundle(folder)


def test_an_unknown_key_inside_a_signed_bundle_is_refused(folder: Path) -> None:
    data = yaml.safe_load((folder / "config.yaml").read_text())
    data["model"]["histroy_length"] = data["model"].pop("history_length")
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    sign_again(folder)
    with pytest.raises(BundleError, match="did you mean 'history_length'"):
        load_bundle(folder)


@pytest.mark.parametrize(("change", "match"), [
    (lambda weights: weights.update({"grounding.bias": torch.zeros(7)}), "size mismatch for grounding.bias"),
    (lambda weights: weights.pop("grounding.bias"), r"missing \['grounding.bias'\]"),
    (lambda weights: weights.update({"extra": torch.zeros(1)}), r"not expected \['extra'\]"),
    (lambda weights: weights.update({"grounding.bias": torch.full((3,), torch.nan)}), "not finite"),
])
def test_weights_that_do_not_fit_are_refused(
        folder: Path, change: Callable[[dict[str, torch.Tensor]], object], match: str) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    sign_again(folder)
    with pytest.raises(BundleError, match=match):
        load_bundle(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    sign_again(folder)
    with pytest.raises(BundleError, match="do not fit config.yaml"):
        load_bundle(folder)


def changed_contract(**changes: object) -> RobotContract:
    """The tabletop contract with dotted keys set to other values."""
    data = tabletop().model_dump(mode="json")
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return parse_contract(data, "test")


def test_the_robot_it_was_trained_for_fits() -> None:
    other_topics = changed_contract(cameras__static__topic="/other", limits__linear_velocity_m_s=0.1)
    check_fits(tabletop(), other_topics, model_file().model)


@pytest.mark.parametrize(("changes", "match"), [
    ({"action__rate_hz": 10}, "action rate_hz: bundle 20.0, robot 10.0"),
    ({"base_frame": "world"}, "base_frame: bundle base_link, robot world"),
    ({"tool_frame": "flange"}, "tool_frame: bundle tcp, robot flange"),
    ({"cameras__static__width": 640}, "camera 'static': bundle 224x224, robot 640x224"),
    ({"cameras": {"wrist": tabletop().cameras["wrist"].model_dump(mode="json")}},
     r"camera 'static': bundle 224x224, robot none, has \['wrist'\]"),
    ({"joints__names": ["joint1"]}, r"joint 'finger_joint': bundle yes, robot no, has \['joint1'\]"),
    ({"action__gripper": None}, "action names: bundle .*'gripper'.*, robot "),
])
def test_a_robot_that_does_not_fit_is_refused_side_by_side(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ContractError, match=match):
        check_fits(tabletop(), changed_contract(**changes), model_file().model)


def test_another_action_space_lists_every_difference() -> None:
    robot = changed_contract(action__kind="ee_pose", action__command__type="geometry_msgs/msg/PoseStamped",
                             stop__behaviour="hold_position", action__rate_hz=5)
    with pytest.raises(ContractError) as error:
        check_fits(tabletop(), robot, model_file().model)
    assert "action kind: bundle ee_delta, robot ee_pose" in str(error.value)
    assert "action rate_hz: bundle 20.0, robot 5.0" in str(error.value)
