"""A folder of new demonstrations and a policy bundle in, the bundle of a policy that learnt them out.

`ros2 run vla_training finetune data:=FOLDER from:=BUNDLE output:=outputs/finetuned with:=DATASET`

data: recordings as the recorder leaves them, or any data set. from: a bundle, or the name of a shipped policy. with:
data sets of what it could do before, to rehearse. What is chosen is said with its reason, and written to
OUTPUT/finetune.yaml, a training file that `train` takes too. The policy is OUTPUT/bundle:
`ros2 launch vla_policy bringup.launch.py policy:=OUTPUT/bundle`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from rich.console import Console

from vla_policy.checkpoint import CONTRACT, Bundle, check_fits, load_bundle
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import ConfigError, VlaError, nearest
from vla_policy.resources import find_contract, find_policy
from vla_training.console import refuse
from vla_training.datasets.config import Source
from vla_training.finetuning.amount import Amount, amount_of
from vla_training.finetuning.recipe import Recipe, Wishes, choose_recipe
from vla_training.train import run_training
from vla_training.training import state
from vla_training.training.run import Run
from vla_training.watch.facts import results_at
from vla_training.watch.memory import GIB

FILE = "finetune.yaml"
ASSIGN = ":="
BEYOND_SHARE = 0.01  # of the rows: more of them beyond the policy's range is worth a word


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(highlight=False)
    try:
        options = make_parser().parse_args(launch_style(given, make_parser()))
        if not options.resume:
            prepare(options, console)
    except VlaError as problem:
        refuse(console, problem)
        return 1
    if options.plan:
        return 0
    status = run_training(lambda: _begin(options, given, console), options.resume, console)
    if status == 0:
        robot = f" robot:={options.robot}" if options.robot else ""
        _say(console, f"to try it: ros2 launch vla_policy bringup.launch.py policy:={options.output / 'bundle'}{robot}")
    return status


def prepare(options: argparse.Namespace, console: Console) -> None:
    """Look at bundle, robot and data, say what will be done, and unless that is all that is wanted write it down.

    Raises: VlaError for what does not go together.
    """
    state.check_none(options.output / "state")
    folder = find_policy(options.start)
    bundle, contract = load_bundle(folder), load_contract(_contract_path(options))
    check_fits(bundle.contract, contract, bundle.config)
    sources = [Source(path=str(path)) for path in (options.data, *options.rehearse)]
    new, *old = [amount_of(source, contract, bundle.config) for source in sources]
    wishes = Wishes(options.steps, options.learning_rate, options.minutes, options.seed)
    recipe = choose_recipe(bundle, str(folder), new, tuple(old), _memory_gib(options.device), wishes)
    _tell_plan(console, bundle, contract, new, old, recipe)
    if not options.plan:
        with results_at(options.output):
            options.output.mkdir(parents=True, exist_ok=True)
            _write(options.output / FILE, bundle, recipe)


def _begin(options: argparse.Namespace, given: Sequence[str], console: Console) -> Run:
    run = Run(options.output / FILE, _contract_path(options), options.output, options.device, given, program="finetune")
    _tell_range(run, console)
    return run


def _contract_path(options: argparse.Namespace) -> str:
    return str(find_contract(options.robot) if options.robot else find_policy(options.start) / CONTRACT)


def launch_style(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """`key:=value` as in a launch becomes `--key value`; several values are separated by commas.

    Raises: ConfigError for a key that the command does not have, naming the nearest.
    """
    options = [action for action in parser._actions if action.dest != "help"]
    known = {action.option_strings[-1].removeprefix("--"): action for action in options}
    translated: list[str] = []
    for argument in arguments:
        key, assign, value = argument.partition(ASSIGN)
        name = key.replace("_", "-")
        if not assign or key.startswith("-"):
            translated.append(argument)
        elif name not in known:
            raise ConfigError(f"{argument}: unknown argument '{key}'; {nearest(name, known)}")
        elif known[name].nargs == 0 and value not in ("true", "false"):
            raise ConfigError(f"{argument}: got '{value}', expected true or false")
        elif known[name].nargs == 0:
            translated += [f"--{name}"] * (value == "true")
        else:
            translated += [f"--{name}", *(value.split(",") if known[name].nargs == "+" else [value])]
    return translated


def make_parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="finetune", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the new demonstrations")
    parser.add_argument("--from", dest="start", default="tabletop", help="bundle, or the name of a shipped policy")
    parser.add_argument("--output", type=Path, default=Path("outputs/finetuned"), help="folder of the run")
    parser.add_argument("--with", dest="rehearse", type=Path, nargs="+", default=[], help="data sets of old tasks")
    parser.add_argument("--robot", help="robot contract: a name or a path (default: the bundle's own)")
    parser.add_argument("--steps", type=int, help="in place of the rule's")
    parser.add_argument("--learning-rate", type=float, help="in place of the rule's")
    parser.add_argument("--minutes", type=float, help="of training, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and end")
    parser.add_argument("--resume", action="store_true", help="go on where the run in OUTPUT was stopped")
    return parser


def _tell_plan(console: Console, bundle: Bundle, contract: RobotContract, new: Amount, old: Sequence[Amount],
               recipe: Recipe) -> None:
    _say(console, f"learns from {new.words}")
    for amount in (new, *old):
        for reason in amount.left_out:
            _say(console, f"  left out: {reason}")
    for amount in old:
        _say(console, f"rehearses {amount.words}")
    sentences = [text for amount in (new, *old) for text in amount.sentences]
    words = bundle.tokenizer.new_words(sentences)
    _say(console, f"new words: {', '.join(words)}; they get places of their own in the vocabulary" if words else
         "no new words")
    _say(console, f"scales actions and states as the bundle does, whose contract '{bundle.contract.name}' fits "
                  f"'{contract.name}'")
    for reason in recipe.reasons:
        _say(console, reason)


def _tell_range(run: Run, console: Console) -> None:
    """Say where new actions lie beyond the range that the policy's statistics can express."""
    source, normalizer = run.data.sources[0], run.start.normalizers.action
    rows = source.whole_rows()[:, :len(normalizer.names)]
    beyond = ((rows < np.array(normalizer.low) - 1e-6) | (rows > np.array(normalizer.high) + 1e-6)).mean(0)
    told = [f"{name} {share:.0%}" for name, share in zip(normalizer.names, beyond, strict=True) if share > BEYOND_SHARE]
    if told:
        _say(console, f"of the new actions {', '.join(told)} lie beyond the policy's range and are cut to it; where "
                      "that is much, drive slower or train anew")


def _write(path: Path, bundle: Bundle, recipe: Recipe) -> None:
    file = {"model": bundle.file.model.model_dump(mode="json"), "training": recipe.training}
    head = "# Written by finetune:\n" + "".join(f"# - {reason}.\n" for reason in recipe.reasons)
    path.write_text(head + yaml.safe_dump(file, sort_keys=False, width=110), encoding="utf-8")


def _memory_gib(device: str) -> float:
    """Of a GPU all of it, of a machine what is free now."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_properties(device).total_memory / GIB
    return psutil.virtual_memory().available / GIB


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
