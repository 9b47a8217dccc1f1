"""Names and paths of shipped files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_policy.errors import ConfigError
from vla_policy.resources import find_contract, find_policy


def test_a_name_is_found_among_the_shipped_files() -> None:
    path = find_contract("tabletop")
    assert path.name == "tabletop.yaml" and path.is_file()


def test_a_path_passes_through(tmp_path: Path) -> None:
    assert find_policy(str(tmp_path)) == tmp_path


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bundle").mkdir()
    assert find_policy("~/bundle") == tmp_path / "bundle"


def test_a_file_beside_is_found_and_hides_no_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "tabletop").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_contract("mine.yaml") == Path("mine.yaml")
    assert find_contract("tabletop").is_file()


def test_an_installed_share_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share" / "vla_policy"
    for folder in ("config", "policies/grasp"):
        (share / folder).mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert find_policy("grasp") == share / "policies" / "grasp"


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="got 'tabeltop'.*config/robots.*did you mean 'tabletop'"):
        find_contract("tabeltop")


def test_a_path_that_is_not_there_is_not_guessed_at() -> None:
    with pytest.raises(ConfigError, match="no/such/folder: no such file or folder"):
        find_policy("no/such/folder")
