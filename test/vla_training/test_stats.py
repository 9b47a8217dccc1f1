"""The command `stats`: a file that a run takes for the same data; mistakes end in one line."""

from pathlib import Path

import pytest
from fabricated import write_config, write_dataset

from vla_training.stats import main


def test_a_file_for_a_run_and_a_table_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "set")
    config = write_config(tmp_path / "run.yaml", tmp_path / "set")
    assert main([str(config), "--output", str(tmp_path / "out/statistics.json")]) == 0
    told = capsys.readouterr().out
    assert "4 episodes, 84 action rows" in " ".join(told.split())
    assert "finger_joint" in told
    config = write_config(tmp_path / "run.yaml", tmp_path / "set", statistics=str(tmp_path / "out/statistics.json"))
    assert main([str(config)]) == 0
    assert main([str(config), "--data", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "file").touch()
    assert main([str(config), "--output", str(tmp_path / "file/statistics.json")]) == 1
    assert f"{tmp_path / 'file/statistics.json'}: cannot be written ([Errno 17] File exists" in capsys.readouterr().out
