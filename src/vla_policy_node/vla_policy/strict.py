"""A mapping or YAML file in, a validated frozen model out; every mistake is named with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vla_policy.errors import VlaError, nearest


class StrictModel(BaseModel):
    """Base of all configuration: immutable, unknown keys refused, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=StrictModel)


def parse(model: type[Model], data: Any, where: str, error: type[VlaError]) -> Model:
    """Validate `data` as `model`; `where` names its origin in messages.

    Raises: `error` naming every mistake.
    """
    if not isinstance(data, dict):
        raise error(f"{where}: got {type(data).__name__}, expected a mapping with "
                    f"{', '.join(model.model_fields)}")
    try:
        # Text is not taken for a number, nor true for 1. By way of JSON, because only there does pydantic's
        # strict mode take lists as tuples and words as enums, which is all that YAML can write.
        return model.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as problem:
        lines = [_explain(model, item) for item in problem.errors()]
        raise error(f"{where}: " + "; ".join(lines)) from None


def load_yaml(model: type[Model], path: Path | str, error: type[VlaError]) -> Model:
    """Read and validate a YAML (or JSON) file. Raises: `error` when it is missing, unreadable or wrong."""
    path = Path(path)
    if not path.is_file():
        neighbours = sorted(file.name for file in path.parent.glob("*") if file.suffix in (".yaml", ".yml", ".json"))
        raise error(f"{path}: no such file; {nearest(path.name, neighbours)}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        raise error(f"{path}{line}: {problem.problem}; correct the YAML there") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise error(f"{path}: got no YAML text, expected YAML in UTF-8: "
                    f"{' '.join(str(problem).split())}") from None
    return parse(model, data, str(path), error)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice (PyYAML keeps the last in silence) and reads 1e-4 as a number."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping's node. Raises: yaml.MarkedYAMLError, with the line, for a key written twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is written twice",
                                           problem_mark=key.start_mark)
            seen.add(key.value)
        return node


# YAML 1.2's rule for floats; PyYAML follows 1.1, where 1e-4 without a point is text.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"),
                              list("-+0123456789"))


# JSON's words in pydantic's messages -> YAML's.
_WORDS = {"input should be an object": "expected a mapping", "a valid array": "a list",
          " after validation": "", "input should be": "expected"}


def _explain(model: type[BaseModel], item: Any) -> str:
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    place = ".".join(parts)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{place}'; {nearest(parts[-1], _fields_at(model, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"key '{place}' is missing; add it"
    if item["type"] == "value_error":
        return f"{place}: {item['ctx']['error']}" if place else str(item["ctx"]["error"])
    text = item["msg"][0].lower() + item["msg"][1:]
    for word, better in _WORDS.items():
        text = text.replace(word, better)
    return f"{place}: got {item['input']!r}, {text}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the model that stands at `loc` below `model`."""
    current: Any = model
    parts = iter(loc)
    for part in parts:
        field = current.model_fields.get(str(part))
        inner = _inner_model(field.annotation) if field else None
        if inner is None:
            return []
        current = inner
        if get_origin(field.annotation) in (dict, tuple):
            next(parts, None)  # the key or index inside it
    return list(current.model_fields)


def _inner_model(annotation: Any) -> Any:
    """The model class inside annotations like `dict[str, Camera]` or `Gripper | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
