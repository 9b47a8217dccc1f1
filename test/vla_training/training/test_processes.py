"""Several processes are as one: equal gradients, shares of the weights, and losses bit for bit after a kill -9."""

import json
from pathlib import Path

import pytest
import torch
from fabricated import write_config, write_dataset
from training_processes import first_step_of, noted_run, together

from vla_policy.checkpoint import load_bundle

pytestmark = pytest.mark.timeout(600)  # fresh processes on a loaded machine take their time to import torch
ABSOLUTE, RELATIVE = 1e-6, 1e-4  # float32 sums in another order
ROUNDING = 1e-5
STAGES = [{"until": 1.0, "window": 4, "batch_size": 8}]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write_dataset(root)
    return root


def test_two_processes_and_accumulation_do_the_step_of_one(dataset: Path, tmp_path: Path) -> None:
    """Windows of ragged episodes: a process' rows that count differ in number. Gradients, their norm, and the weights
    after the step, where a gradient is more than rounding: Adam's first step goes by its sign alone.
    """
    ways = {"one": {}, "pieces": {"accumulation_steps": 4}, "ddp": {}, "ddp_pieces": {"accumulation_steps": 2},
            "fsdp2": {"parallel": "fsdp2"}, "fsdp2_pieces": {"parallel": "fsdp2", "accumulation_steps": 2}}
    configs = {name: write_config(tmp_path / f"{name}.yaml", dataset, stages=STAGES, **changes)
               for name, changes in ways.items()}
    found = {name: first_step_of(configs[name], tmp_path / name) for name in ("one", "pieces")}
    apart = [name for name in ways if name not in found]
    together(2, "first_step", *(word for name in apart for word in (configs[name], tmp_path / f"{name}.pt")))
    found |= {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in apart}
    one = found.pop("one")
    assert one and all(torch.isfinite(value).all() for value in one.values())
    for name, other in found.items():
        assert other.keys() == one.keys(), name
        for key, value in one.items():
            gradient = one.get(key.replace("weight/", "gradient/", 1)) if key.startswith("weight/") else None
            sure = torch.ones_like(value, dtype=torch.bool) if gradient is None else gradient.abs() > ROUNDING
            torch.testing.assert_close(other[key][sure], value[sure], atol=ABSOLUTE, rtol=RELATIVE,
                                       msg=lambda text, name=name, key=key: f"{name}: {key}: {text}")


def test_sharded_weights_are_halves_saved_resumed_and_exported_whole(dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", dataset, stages=STAGES, steps=2, parallel="fsdp2",
                          validation_share=0.0)
    together(2, "sharded", config, tmp_path / "run")
    whole = load_bundle(tmp_path / "run/bundle").model
    full = sum(weight.numel() * weight.element_size() for weight in whole.parameters())
    for rank in range(2):
        facts = json.loads((tmp_path / f"run/rank{rank}.json").read_text())
        assert facts["same"] and facts["steps"] == 2 and facts["whole"] == full
        assert facts["bytes"] / full < 0.6


@pytest.mark.parametrize("processes", [1, 2])
def test_after_a_kill_the_losses_are_those_of_an_unbroken_run(processes: int, dataset: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", dataset, steps=8, export_every=3, validate_every=4, workers=0)
    together(processes, "broken", config, tmp_path, False, killed=True)
    if processes == 1:
        noted_run(config, tmp_path / "broken", resume=True)
    else:
        together(processes, "broken", config, tmp_path, True)
    for rank in range(processes):
        whole, broken = ([json.loads(line) for line in (tmp_path / f"{name}.{rank}.jsonl").read_text().splitlines()]
                         for name in ("whole", "broken"))
        assert [step for step, *_ in broken] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
        assert whole == broken[:3] + broken[5:] and broken[3:5] == broken[5:7]
    one, other = (load_bundle(tmp_path / name / "bundle").model.state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
