"""The source tree in; out: adapters are small, a backbone is named in its file and the registry alone."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import vla_policy
from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve

LIBRARY = Path(vla_policy.__file__).parent
ADAPTERS = sorted({LIBRARY.parent / f"{target.partition(':')[0].replace('.', '/')}.py"
                   for name, target in BACKBONES.items() if name != "tiny"})
MEDIAN_LINES = 40
# The registry itself, and the importer of checkpoints, which names the two models that it knows.
MAY_NAME = (LIBRARY / "model" / "registry.py", LIBRARY / "import_robovlms.py")


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


def test_no_other_file_knows_a_backbone_by_name() -> None:
    names = [re.escape(name).replace(r"\-", "[-_]") for name in BACKBONES if name != "tiny"]
    pattern = re.compile(rf"\b({'|'.join(names)})\b", re.IGNORECASE)
    others = [path for path in LIBRARY.rglob("*.py")
              if "backbones" not in path.parts and path not in MAY_NAME]
    assert {path: found for path in others if (found := pattern.findall(path.read_text("utf-8")))} == {}


def test_every_name_stands_for_a_class() -> None:
    for registry, what in ((BACKBONES, "backbone"), (FORMULATIONS, "formulation"), (HEADS, "action_head")):
        for name in registry:
            assert resolve(registry, name, what).__doc__
