"""A mapping or YAML file in, a validated frozen model out; every mistake is named with its place and the nearest right key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vla_policy.errors import VlaError, nearest


class StrictModel(BaseModel):
    """Base of all configuration: immutable, unknown keys refused, numbers finite, no silent type conversion of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=StrictModel)


def parse(model: type[Model], data: Any, where: str, error: type[VlaError]) -> Model:
    """Validate `data` as `model`; `where` names its origin in messages.

    Raises: `error` with one line per mistake.
    """
    if not isinstance(data, dict):
        raise error(f"{where}: got {type(data).__name__}, expected a mapping with {', '.join(model.model_fields)}")
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        lines = [_explain(model, item) for item in problem.errors()]
        raise error(f"{where}: " + "; ".join(lines)) from None


def load_yaml(model: type[Model], path: Path | str, error: type[VlaError]) -> Model:
    """Read and validate a YAML (or JSON) file. Raises: `error` when it is missing, unreadable or wrong."""
    path = Path(path)
    if not path.is_file():
        raise error(f"{path}: no such file; {nearest(path.name, sorted(p.name for p in path.parent.glob('*.yaml')))}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise error(f"{path}: not valid YAML: {' '.join(str(problem).split())}") from None
    return parse(model, data, str(path), error)


def _explain(model: type[BaseModel], item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "top level"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return f"unknown key '{place}'; {nearest(str(item['loc'][-1]), known)}"
    if item["type"] == "missing":
        return f"key '{place}' is missing; add it"
    if item["type"] == "value_error":
        return f"{place}: {item['ctx']['error']}"
    return f"{place}: got {item['input']!r}, {item['msg'][0].lower()}{item['msg'][1:]}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the model that stands at `loc` below `model`; dict keys on the way are passed over."""
    current: Any = model
    for part in loc:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            break
        field = current.model_fields.get(str(part))
        if field is not None:
            current = _inner_model(field.annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    """The model class inside annotations like `dict[str, Camera]` or `Gripper | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
