"""Nothing in, SIMPLER's published protocol out as data: tasks, sets, variants, start layouts, step limits.

Numbers of the scripts that simpler-env/SimplerEnv publishes its results with (scripts/rt1_*.sh, octo_bridge.sh; commit
4ab7178), in their order. A set of a task is a list of variants, a variant is one environment with its starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from sim_bridges.simpler.robots import GOOGLE, WIDOWX, Robot

MATCHING, AGGREGATION, CAMERAS, TWINS = "visual_matching", "variant_aggregation", "camera_variants", "twins"


@dataclass(frozen=True, slots=True)
class Start:
    """Where an episode begins.

    base: x, y [m] and yaw [rad] of the robot's base. object_xy_m: of the object; or layout: number of the
    environment's own arrangement. overlay: the photo laid over the background (data/real_inpainting), or none.
    """

    base: tuple[float, float, float]
    object_xy_m: tuple[float, float] | None = None
    layout: int | None = None
    overlay: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """An environment and its starts.

    environment: its id. body: SIMPLER's name of the robot's set-up. scene: the mesh around it, `dummy…`: none.
    models: the objects it loads. build: further arguments of the environment. station: the cabinet, or none.
    """

    name: str
    environment: str
    body: str
    scene: str
    models: tuple[str, ...]
    starts: tuple[Start, ...]
    build: Mapping[str, Any] = field(default_factory=dict)
    station: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """steps: control periods of an episode. first_steps: those of its first of two instructions, 0: it has one."""

    name: str
    robot: Robot
    steps: int
    sets: Mapping[str, tuple[Variant, ...]]
    first_steps: int = 0


def spread(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` equally spaced numbers from `low` to `high`, as numpy's linspace gives them."""
    step = (high - low) / (count - 1) if count > 1 else 0.0
    return (*(low + number * step for number in range(count - 1)), high)


def _grid(xs: Sequence[float], ys: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(product(xs, ys))


def _variants(first: Variant, changes: Mapping[str, Mapping[str, Any]]) -> tuple[Variant, ...]:
    """`first`, then one for each change. A change's fields of Variant replace, all others are arguments to build."""
    fields = set(Variant.__dataclass_fields__)
    made = [first]
    for name, change in changes.items():
        own = {key: value for key, value in change.items() if key in fields}
        build = {key: value for key, value in change.items() if key not in fields}
        made.append(replace(first, name=name, build={**first.build, **build}, **own))
    return tuple(made)


# ---- Google's robot ---------------------------------------------------------------------------------------------

# The robot's colours in the photos are between these four: each is a variant of visual matching.
COLOURS = {"original_colours": None, "tabletop_colours_1": "recolor_tabletop_visual_matching_1",
           "tabletop_colours_2": "recolor_tabletop_visual_matching_2",
           "cabinet_colours_1": "recolor_cabinet_visual_matching_1"}
ROOM = "google_pick_coke_can_1_v4"
ROOMS = {"background_1": {"scene": f"{ROOM}_alt_background"}, "background_2": {"scene": f"{ROOM}_alt_background_2"}}
LIGHTS = {"darker": {"slightly_darker_lighting": True}, "brighter": {"slightly_brighter_lighting": True}}
TABLES = {f"table_{number}": {"scene": f"Baked_sc1_staging_objaverse_cabinet{number}_h870"} for number in (1, 2)}
GOOGLE_BODY = "google_robot_static"


def _coloured(first: Variant, names: Iterable[str] = tuple(COLOURS)) -> tuple[Variant, ...]:
    return tuple(replace(first, name=name, build={**first.build, "urdf_version": COLOURS[name]}) for name in names)


def _turned(base: Variant, environment: str) -> tuple[Variant, ...]:
    """The head, and the camera in it, looks further down or up."""
    return tuple(replace(base, name=f"camera_{number}", environment=f"{environment}{suffix}InScene-v0")
                 for number, suffix in ((1, ""), (2, "2")))


def _photographed(starts: Iterable[Start], overlay: str) -> tuple[Start, ...]:
    return tuple(replace(start, overlay=overlay) for start in starts)


def _coke(name: str, orientation: str) -> Task:
    """The can lies or stands on a grid of 5 x 5 places."""
    places = _grid(spread(-0.35, -0.12, 5), spread(-0.02, 0.42, 5))
    base = Variant("base", "GraspSingleOpenedCokeCanInScene-v0", GOOGLE_BODY, ROOM, ("opened_coke_can",),
                   tuple(Start((0.35, 0.20, 0.0), place) for place in places), {orientation: True})
    few = ("opened_coke_can", "opened_pepsi_can", "apple", "sponge", "orange")
    many = ("opened_coke_can", "opened_7up_can", "opened_sprite_can", "sponge", "orange", "opened_fanta_can",
            "bridge_spoon_generated_modified")
    crowded = "GraspSingleOpenedCokeCanDistractorInScene-v0"
    aggregation = _variants(base, {
        **TABLES, "distractors_few": {"environment": crowded, "models": few},
        "distractors_many": {"environment": crowded, "models": many, "distractor_config": "more"}, **ROOMS, **LIGHTS})
    cameras = _turned(base, "GraspSingleOpenedCokeCanAltGoogleCamera")
    matching = _coloured(replace(base, starts=_photographed(base.starts, "google_coke_can_real_eval_1.png")))
    return Task(name, GOOGLE, 80, {MATCHING: matching, AGGREGATION: aggregation, CAMERAS: cameras})


def _move_near() -> Task:
    """One of three objects to another of them: 60 arrangements."""
    objects = ("blue_plastic_bottle", "opened_pepsi_can", "orange", "opened_7up_can", "apple", "sponge",
               "opened_coke_can", "opened_redbull_can")
    baked = tuple(name if name in ("blue_plastic_bottle", "orange") else f"baked_{name}" for name in objects)
    starts = tuple(Start((0.35, 0.21, -0.09), layout=number) for number in range(60))
    base = Variant("base", "MoveNearGoogleInScene-v0", GOOGLE_BODY, ROOM, objects, starts)
    cameras = _turned(base, "MoveNearAltGoogleCamera")
    matching = _coloured(replace(base, environment="MoveNearGoogleBakedTexInScene-v0", models=baked,
                                 starts=_photographed(starts, "google_move_near_real_eval_1.png")))
    return Task("google_robot_move_near", GOOGLE, 80, {
        MATCHING: matching, CAMERAS: cameras,
        AGGREGATION: _variants(base, {"no_distractor": {"no_distractor": True}, **ROOMS, **LIGHTS, **TABLES})})


# Where the robot stood in the photos of the cabinet: x, y [m], yaw [rad].
STANDS = {"a0": (0.644, -0.179, -0.03), "a1": (0.765, -0.182, -0.02), "a2": (0.889, -0.203, -0.06),
          "b0": (0.652, 0.009, 0.0), "b1": (0.752, 0.009, 0.0), "b2": (0.851, 0.035, 0.0),
          "c0": (0.665, 0.224, 0.0), "c1": (0.765, 0.222, -0.025), "c2": (0.865, 0.222, -0.025)}
CABINET = {"light_mode": "simple", "disable_bad_material": True}
RAYS = {"shader_dir": "rt"}  # policies read depth from the cabinet's shadows: these tasks are ray-traced
CABINET_CHANGES = {
    "background_1": {"scene": "modern_bedroom_no_roof"}, "background_2": {"scene": "modern_office_no_roof"},
    "brighter": {"light_mode": "brighter"}, "darker": {"light_mode": "darker"},
    "cabinet_2": {"station": "mk_station2"}, "cabinet_3": {"station": "mk_station3"}}
CABINET_COLOURS = ("cabinet_colours_1", "tabletop_colours_1", "tabletop_colours_2", "original_colours")


def _cabinet(environment: str, starts: Sequence[Start], photographed: Sequence[Start],
             models: tuple[str | None, str | None] = (None, None)) -> dict[str, tuple[Variant, ...]]:
    """models: the object in the variants and in visual matching."""
    base, matched = (
        Variant("base", environment, GOOGLE_BODY, scene, (model,) if model else (), tuple(begin),
                {**RAYS, **build, **({"model_ids": model} if model else {})}, station)
        for scene, model, begin, build, station in (
            ("frl_apartment_stage_simple", models[0], starts, {}, "mk_station"),
            ("dummy_drawer", models[1], photographed, CABINET, "mk_station_recolor")))
    return {MATCHING: _coloured(matched, CABINET_COLOURS), AGGREGATION: _variants(base, CABINET_CHANGES)}


def _drawer(verb: str, drawer: str) -> Task:
    """From nine places before the cabinet."""
    starts = [Start((*place, 0.0)) for place in _grid(spread(0.65, 0.85, 3), spread(-0.2, 0.2, 3))]
    photographed = [Start(base, overlay=f"open_drawer_{stand}.png") for stand, base in STANDS.items()]
    environment = f"{verb.title()}{drawer.title()}DrawerCustomInScene-v0"
    return Task(f"google_robot_{verb}_{drawer}_drawer", GOOGLE, 113, _cabinet(environment, starts, photographed))


def _place_apple() -> Task:
    """Two instructions: open the drawer, then put the apple in. From three places, the apple in nine."""
    apples = _grid(spread(-0.08, -0.02, 3), spread(-0.02, 0.08, 3))
    starts = [Start((0.65, y, 0.0), apple) for y, apple in product(spread(-0.2, 0.2, 3), apples)]
    photographed = [Start(STANDS[stand], apple, overlay=f"open_drawer_{stand}.png")
                    for stand, apple in product(("a0", "b0", "c0"), apples)]
    sets = _cabinet("PlaceIntoClosedTopDrawerCustomInScene-v0", starts, photographed, ("apple", "baked_apple_v2"))
    # The environment goes on to the second instruction in the step after its hundredth.
    return Task("google_robot_place_apple_in_closed_top_drawer", GOOGLE, 200, sets, first_steps=101)


# ---- WidowX -----------------------------------------------------------------------------------------------------

TABLE = ("widowx", "bridge_table_1_v1", "bridge_real_eval_1.png", (0.147, 0.028, 0.0))
SINK = ("widowx_sink_camera_setup", "bridge_table_1_v2", "bridge_sink.png", (0.127, 0.06, 0.0))


def _widowx(name: str, environment: str, models: tuple[str, ...], steps: int = 60,
            place: tuple[str, str, str, tuple[float, float, float]] = TABLE, twin_layouts: int = 24) -> Task:
    """24 arrangements, before a photo; and the same as ManiSkill3's digital twin, all arrangements that it has."""
    body, scene, overlay, base = place
    starts = tuple(Start(base, layout=number, overlay=overlay) for number in range(24))
    matching = Variant("base", f"{environment}-v0", body, scene, models, starts)
    twin = replace(matching, environment=f"{environment}-v1",
                   starts=tuple(Start(base, layout=number, overlay=overlay) for number in range(twin_layouts)))
    return Task(name, WIDOWX, steps, {MATCHING: (matching,), TWINS: (twin,)})


TASKS: Mapping[str, Task] = {task.name: task for task in (
    _widowx("widowx_carrot_on_plate", "PutCarrotOnPlateInScene",
            ("bridge_carrot_generated_modified", "bridge_plate_objaverse_larger")),
    _widowx("widowx_spoon_on_towel", "PutSpoonOnTableClothInScene",
            ("bridge_spoon_generated_modified", "table_cloth_generated_shorter")),
    _widowx("widowx_stack_cube", "StackGreenCubeOnYellowCubeBakedTexInScene",
            ("baked_green_cube_3cm", "baked_yellow_cube_3cm")),
    _widowx("widowx_put_eggplant_in_basket", "PutEggplantInBasketScene",
            ("eggplant", "dummy_sink_target_plane", "sink"), 120, SINK, twin_layouts=64),
    _coke("google_robot_pick_horizontal_coke_can", "lr_switch"),
    _coke("google_robot_pick_vertical_coke_can", "laid_vertically"),
    _coke("google_robot_pick_standing_coke_can", "upright"),
    _move_near(),
    *(_drawer(verb, drawer) for verb in ("open", "close") for drawer in ("top", "middle", "bottom")),
    _place_apple())}

# What the published tables have a row for: the tasks that each is the mean of.
GROUPS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name, task in TASKS.items() if task.robot is WIDOWX},
    "google_robot_pick_coke_can": tuple(name for name in TASKS if name.endswith("_coke_can")),
    "google_robot_move_near": ("google_robot_move_near",),
    "google_robot_open_drawer": tuple(f"google_robot_open_{drawer}_drawer" for drawer in ("top", "middle", "bottom")),
    "google_robot_close_drawer": tuple(f"google_robot_close_{drawer}_drawer" for drawer in ("top", "middle", "bottom")),
    "google_robot_place_apple_in_closed_top_drawer": ("google_robot_place_apple_in_closed_top_drawer",)}
