"""The source tree in; out: adapters are small, a backbone is named in its file and the registry alone."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve

SOURCES = Path(__file__).resolve().parents[2] / "src"
LIBRARY = SOURCES / "vla_policy_node" / "vla_policy"
FILES = {name: LIBRARY.parent / f"{target.partition(':')[0].replace('.', '/')}.py"
         for name, target in BACKBONES.items()}
ADAPTERS = sorted({path for name, path in FILES.items() if name != "tiny"})
MEDIAN_LINES = 40
# The registry; the default of a model file; the importer of checkpoints, whose table of families is its purpose; models
# that published figures of speed are about.
MAY_NAME = {LIBRARY / "model" / "registry.py": set(BACKBONES), LIBRARY / "model" / "config.py": {"tiny"},
            LIBRARY / "import_robovlms.py": {"kosmos", "paligemma", "paligemma-causal"},
            LIBRARY / "bench" / "suite.py": {"kosmos", "paligemma", "qwen-vl", "smolvlm"}}
# An adapter that builds on another one, and one that tells where pretrained weights are.
RELATIVES = {"idefics2": {"idefics3"}, "smolvlm": {"idefics3"}, "ofa": {"florence2"}}


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and number not in documentation
               for number, line in enumerate(text.splitlines(), 1))


def test_adapters_are_small() -> None:
    sizes = {path.stem: code_lines(path) for path in ADAPTERS}
    assert statistics.median(sizes.values()) <= MEDIAN_LINES, sizes


def names_in(path: Path) -> set[str]:
    """Backbones that a file names, in whatever case; `tiny` is a word too, so it counts in quotes only."""
    text = path.read_text(encoding="utf-8").lower().replace("_", "-")
    return {name for name in BACKBONES
            if re.search(r"[\"']tiny[\"']" if name == "tiny" else rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)}


def test_no_other_file_knows_a_backbone_by_name() -> None:
    others = set(SOURCES.rglob("*.py")) - set(FILES.values())
    assert LIBRARY / "model" / "backbones" / "pretrained.py" in others
    assert {path: found for path in others if (found := names_in(path) - MAY_NAME.get(path, set()))} == {}


def test_an_adapter_names_itself_and_its_relatives_alone() -> None:
    for path in ADAPTERS:
        own = {name for name in BACKBONES if FILES[name] == path} | RELATIVES.get(path.stem, set())
        assert names_in(path) <= own, path


def test_every_name_stands_for_a_class() -> None:
    for registry, what in ((BACKBONES, "backbone"), (FORMULATIONS, "formulation"), (HEADS, "action_head")):
        for name in registry:
            assert resolve(registry, name, what).__doc__
