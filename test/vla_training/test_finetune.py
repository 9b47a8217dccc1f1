"""Fine-tuning in one line: rules are chosen by size and said, new words are learnt, what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from bundles import write_bundle
from make_bags import Motion, record_episode, tabletop

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import ConfigError, InstructionError
from vla_policy.policy import Policy
from vla_policy.resources import find_policy
from vla_training.config import load_training_file
from vla_training.finetune import launch_style, main, make_parser
from vla_training.finetuning import recipe
from vla_training.finetuning.amount import Amount
from vla_training.finetuning.recipe import Wishes, choose_recipe

CONTRACT = tabletop(32)
OLD_SENTENCE, NEW_SENTENCE = "push the button", "ring the bell"
MOTION = Motion(seconds=2.0, delay_s=0.002)
NEW = Amount("new", 40, 2000, 500, ("ring",), (NEW_SENTENCE,), ())
OLD = Amount("old", 100, 8000, 2000, ("lift",), (OLD_SENTENCE,), ())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT.model_dump(mode="json")))
    return write_bundle(folder / "bundle", folder / "contract.yaml", [OLD_SENTENCE], action_chunk_size=8)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags")
    for number in range(2):
        record_episode(folder / f"episode_{number}", CONTRACT, replace(MOTION, seed=number), instruction=NEW_SENTENCE)
    record_episode(folder / "episode_2", CONTRACT, MOTION, outcome="failure")
    return folder


# ---- the rules --------------------------------------------------------------------------------------------------


def test_a_small_policy_is_trained_whole_and_sees_the_new_as_often_with_rehearsal() -> None:
    bundle = load_bundle(find_policy("tabletop"))
    alone = choose_recipe(bundle, "start", NEW, (), 8.0, Wishes())
    both = choose_recipe(bundle, "start", NEW, (OLD,), 8.0, Wishes())
    assert alone.training["adapt"] == {} and "all 0.88 M weights are trained" in alone.reasons[0]
    assert alone.training["learning_rate"] == pytest.approx(0.4 * bundle.file.training["learning_rate"])
    assert [one["window"] for one in alone.training["stages"]] == [1, bundle.config.history_length]
    assert both.training["steps"] == pytest.approx(2 * alone.training["steps"], abs=1)
    assert [source.get("weight") for source in both.training["datasets"]] == [None, 0.25]  # half of what is drawn
    assert "with:=DATASET" in " ".join(alone.reasons) and "half is rehearsed" in " ".join(both.reasons)
    assert both.training["losses"] == bundle.file.training["losses"] and both.training["validation_share"] == 0.1
    few = choose_recipe(bundle, "start", replace(NEW, episodes=3, looks=20), (), 8.0, Wishes())
    assert few.training["steps"] == recipe.STEPS[0] and few.training["validation_share"] == 0.0


def test_a_large_policy_is_trained_as_far_as_the_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(find_policy("tabletop"))
    monkeypatch.setattr(recipe, "SMALL_WEIGHTS", 1000)  # the small model stands for a large one
    whole = choose_recipe(bundle, "start", NEW, (), 8.0, Wishes())
    assert whole.training["adapt"] == {"activation_checkpointing": True} and whole.training["batch_size"] == 32
    gib = 0.88e6 * 16 / 0.7 / 2**30
    tight = choose_recipe(bundle, "start", NEW, (), 0.99 * gib, Wishes())
    assert tight.training["adapt"]["freeze"] == ["vision"] and "vision stays as it is" in tight.reasons[0]
    with pytest.raises(ConfigError, match="expected at least"):
        choose_recipe(bundle, "start", NEW, (), 0.001, Wishes())


def test_what_a_person_asks_for_stands_in_place_of_the_rules() -> None:
    bundle = load_bundle(find_policy("tabletop"))
    chosen = choose_recipe(bundle, "start", NEW, (), 8.0, Wishes(steps=7, learning_rate=1e-5, minutes=2.0, seed=3))
    assert (chosen.training["steps"], chosen.training["learning_rate"]) == (7, 1e-5)
    assert (chosen.training["max_minutes"], chosen.training["seed"]) == (2.0, 3)
    assert "7 steps, as asked" in chosen.reasons


# ---- the command ------------------------------------------------------------------------------------------------


def test_arguments_are_given_as_to_a_launch_or_as_options() -> None:
    options = make_parser().parse_args(launch_style(
        ["data:=d", "from:=b", "with:=x,y", "learning_rate:=1e-4", "plan:=true", "resume:=false"], make_parser()))
    assert (options.data, options.start, options.rehearse) == (Path("d"), "b", [Path("x"), Path("y")])
    assert options.learning_rate == 1e-4 and options.plan and not options.resume
    assert make_parser().parse_args(launch_style(["--data", "d"], make_parser())).start == "tabletop"
    with pytest.raises(ConfigError, match="unknown argument 'dta'; did you mean 'data'"):
        launch_style(["dta:=d"], make_parser())
    with pytest.raises(ConfigError, match="got 'maybe', expected true or false"):
        launch_style(["plan:=maybe"], make_parser())


def test_from_recordings_to_a_policy_that_knows_the_new_words(
    start: Path, bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    with pytest.raises(InstructionError, match="'bell'"):
        Policy.load(start, "cpu", CONTRACT).reset(NEW_SENTENCE)
    command = [f"data:={bags}", f"from:={start}", f"output:={output}", "steps:=3", "device:=cpu"]
    assert main([*command, "plan:=true"]) == 0
    assert not output.exists() and "new words: bell, ring" in (told := capsys.readouterr().out)
    assert "left out: episode_2: outcome failure" in told and "scales actions and states as the bundle does" in told
    assert main(command) == 0
    assert f"policy:={output}/bundle" in " ".join(capsys.readouterr().out.split())
    before, after = load_bundle(start), load_bundle(output / "bundle")
    assert after.action_normalizer == before.action_normalizer and after.state_normalizer == before.state_normalizer
    assert after.provenance["command"].startswith("finetune data:=") and after.provenance["steps"] == 3
    policy = Policy.load(output / "bundle", "cpu", CONTRACT)
    for sentence in (OLD_SENTENCE, NEW_SENTENCE):
        policy.reset(sentence)
    _, training = load_training_file(output / "finetune.yaml")  # as `train` would take it
    assert training.steps == 3 and training.start == str(start)
    assert main([*command, "resume:=true"]) == 0  # nothing is left to do
    assert main(command) == 1  # what is there is not trained over
    assert "there is a run of 3 steps there" in capsys.readouterr().out


def test_data_or_robots_that_do_not_fit_are_refused_before_anything_is_written(
    start: Path, bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    wide = record_episode(tmp_path / "wide/one", tabletop(48), MOTION).parents[1]
    silent = record_episode(tmp_path / "silent/one", CONTRACT, MOTION).parent
    record = (silent / "episode.json").read_text()
    (silent / "episode.json").write_text(record.replace('"push the button"', '" "'))
    refusals = {
        f"data:={wide}": "recorded with contract 'tabletop'",
        f"data:={silent.parent}": "instruction: got an empty one",
        f"data:={tmp_path / 'nothing'}": "no such folder",
        f"data:={bags} robot:=ur5e": "the policy does not fit robot 'ur5e'",
        f"data:={bags} from:={tmp_path}": "expected a bundle",
        f"data:={bags} with:={tmp_path / 'none'}": "no such folder",
    }
    for arguments, words in refusals.items():
        given = [f"from:={start}", f"output:={output}", *arguments.split()]
        assert main(given) == 1
        assert words in " ".join(capsys.readouterr().out.split()), arguments
    assert not output.exists()


def test_the_file_it_writes_says_why(start: Path, bags: Path, tmp_path: Path) -> None:
    assert main([f"data:={bags}", f"from:={start}", f"output:={tmp_path / 'run'}", "steps:=1", "device:=cpu"]) == 0
    text = (tmp_path / "run/finetune.yaml").read_text()
    assert "# - 1 steps, as asked." in text and "weights are trained" in text
    assert yaml.safe_load(text)["training"]["datasets"] == [{"path": str(bags)}]
