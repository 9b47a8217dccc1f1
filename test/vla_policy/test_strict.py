"""Mappings and YAML files with one mistake in, the sentence that names the mistake out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest

from vla_policy.errors import ConfigError, nearest
from vla_policy.strict import StrictModel, load_yaml, parse


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Wheel(StrictModel):
    radius_m: float
    spokes: int = 20


class Cart(StrictModel):
    wheels: dict[str, Wheel]
    spare: Wheel | None = None
    colour: Colour = Colour.RED
    loads_kg: tuple[float, ...] = ()
    axles: tuple[Wheel, ...] = ()
    out_dir: Path = Path("outputs")
    fast: bool = False


def refusal(data: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Cart, data, "cart.yaml", ConfigError)
    return str(caught.value)


def test_what_yaml_can_write_is_taken() -> None:
    cart = parse(Cart, {"wheels": {"left": {"radius_m": 1}}, "colour": "blue", "loads_kg": [1, 2.5],
                        "out_dir": "runs",
                        "axles": [{"radius_m": 0.5, "spokes": 3}]}, "cart.yaml", ConfigError)
    assert cart.wheels["left"].radius_m == 1.0 and cart.colour is Colour.BLUE and cart.loads_kg == (1.0, 2.5)
    assert cart.out_dir == Path("runs") and cart.axles[0].spokes == 3


def test_a_model_survives_its_own_dump() -> None:
    cart = Cart(wheels={"left": Wheel(radius_m=0.3)}, loads_kg=(1.0,), spare=Wheel(radius_m=0.1))
    assert parse(Cart, cart.model_dump(), "dump", ConfigError) == cart


@pytest.mark.parametrize(("data", "words"), [
    ({"wheels": {}, "colur": "red"},
     "unknown key 'colur'; did you mean 'colour'? known: wheels, spare, colour"),
    ({"wheels": {"left": {"radius_m": 1.0, "spoke": 2}}},
     "unknown key 'wheels.left.spoke'; did you mean 'spokes'?"),
    ({"wheels": {"spare": {"radius_m": 1.0, "spoke": 2}}},
     "unknown key 'wheels.spare.spoke'; did you mean 'spokes'?"),
    ({"wheels": {}, "axles": [{"radius_m": 1.0, "radius": 2}]},
     "unknown key 'axles.0.radius'; did you mean 'radius_m'?"),
    ({"wheels": {}, "spare": {"radius_m": 1.0, "radius": 2}},
     "unknown key 'spare.radius'; did you mean 'radius_m'?"),
    ({}, "key 'wheels' is missing"),
    ({"wheels": {"left": {}}}, "key 'wheels.left.radius_m' is missing"),
    ({"wheels": 3}, "wheels: got 3, expected a mapping"),
    ({"wheels": {}, "loads_kg": 3}, "loads_kg: got 3, expected a list"),
    ({"wheels": {}, "colour": "green"}, "colour: got 'green', expected 'red' or 'blue'"),
    ({"wheels": {"left": {"radius_m": "1.0"}}}, "wheels.left.radius_m: got '1.0', expected a valid number"),
    ({"wheels": {"left": {"radius_m": True}}}, "wheels.left.radius_m: got True, expected a valid number"),
    ({"wheels": {"left": {"radius_m": float("nan")}}},
     "wheels.left.radius_m: got nan, expected a finite number"),
    ({"wheels": {"left": {"radius_m": float("inf")}}},
     "wheels.left.radius_m: got inf, expected a finite number"),
    ({"wheels": {"left": {"radius_m": 1.0, "spokes": 2.5}}},
     "wheels.left.spokes: got 2.5, expected a valid integer"),
    ({"wheels": {}, "fast": "yes"}, "fast: got 'yes', expected a valid boolean"),
    ([1, 2], "got list, expected a mapping with wheels, spare"),
    (None, "got NoneType, expected a mapping with wheels, spare"),
])
def test_a_mistake_is_named(data: object, words: str) -> None:
    text = refusal(data)
    assert text.startswith("cart.yaml: ") and words in text


def test_every_mistake_is_named_at_once() -> None:
    text = refusal({"colur": "red", "loads_kg": ["a"]})
    assert "colur" in text and "loads_kg.0: got 'a'" in text and "'wheels' is missing" in text


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Wheel(radius_m=1.0).radius_m = 2.0


def test_yaml_reads_exponents_without_a_point(tmp_path: Path) -> None:
    (tmp_path / "cart.yaml").write_text("wheels: {left: {radius_m: 1e-4}, right: {radius_m: +2E3}}\n")
    wheels = load_yaml(Cart, tmp_path / "cart.yaml", ConfigError).wheels
    assert (wheels["left"].radius_m, wheels["right"].radius_m) == (1e-4, 2e3)


@pytest.mark.parametrize(("raw", "words"), [
    (b"wheels: {}\nfast: true\nwheels: {}\n", "line 3: key 'wheels' is written twice"),
    (b"wheels: {left: {radius_m: 1.0, radius_m: 2.0}}\n", "line 1: key 'radius_m' is written twice"),
    (b"wheels: {\n", "line 2: "),
    (b"\xff\xfe\x00wheels", "expected YAML in UTF-8"),
    (b"", "got NoneType, expected a mapping"),
])
def test_broken_yaml_is_refused_with_its_place(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "cart.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load_yaml(Cart, path, ConfigError)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "tabletop.yaml").write_text("wheels: {}\n")
    with pytest.raises(ConfigError, match=r"tabeltop.yaml: no such file; did you mean 'tabletop.yaml'\?"):
        load_yaml(Cart, tmp_path / "tabeltop.yaml", ConfigError)


def test_nearest_offers_nothing_far_fetched() -> None:
    assert nearest("xyzzy", ["static", "wrist"]) == "known: static, wrist"
    assert nearest("x", []) == "known: none"
