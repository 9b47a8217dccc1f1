"""A robot's name in, what SIMPLER's simulation of it is like out: joints, camera, rates, controller, start.

Of simpler-env/ManiSkill2_real2sim (ef7a4d4): agents/configs and the scripts of simpler-env/SimplerEnv (4ab7178).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim_bridges.checks import Offer
from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ContractError
from vla_policy.types import seconds_to_ns

FRAME = "base_link"  # actions and tool poses are in the frame of the robot's base


@dataclass(frozen=True, slots=True)
class Robot:
    """rate_hz: of control. sim_hz: of physics. camera: ours; their_camera: SIMPLER's name of it. size: width, height.

    tool_link: the link whose pose is the tool's. sticky_steps: for how many steps the gripper's motion goes on once it
    began; 0: the gripper takes an absolute position.
    """

    name: str
    rate_hz: int
    sim_hz: int
    control_mode: str
    joints: tuple[str, ...]
    camera: str
    their_camera: str
    size: tuple[int, int]
    tool_link: str
    sticky_steps: int

    @property
    def period_ns(self) -> int:
        """Control period [ns]."""
        return seconds_to_ns(1.0 / self.rate_hz)

    @property
    def offer(self) -> Offer:
        """What a contract of this robot is held against."""
        return Offer("SIMPLER", FRAME, self.joints, float(self.rate_hz), self.period_ns, (ActionKind.EE_DELTA,),
                     {self.camera: self.size}, f"config/robots/simpler_{self.name}.yaml")


WIDOWX = Robot(
    name="widowx", rate_hz=5, sim_hz=500, control_mode="arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
    joints=("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger", "right_finger"),
    camera="third_view", their_camera="3rd_view_camera", size=(640, 480), tool_link="ee_gripper_link", sticky_steps=0)
GOOGLE = Robot(
    name="google", rate_hz=3, sim_hz=513,
    control_mode="arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_"
                 "interpolate_by_planner",
    joints=("joint_torso", "joint_shoulder", "joint_bicep", "joint_elbow", "joint_forearm", "joint_wrist",
            "joint_gripper", "joint_finger_right", "joint_finger_left", "joint_head_pan", "joint_head_tilt"),
    camera="overhead", their_camera="overhead_camera", size=(640, 512), tool_link="link_gripper_tcp", sticky_steps=15)
ROBOTS: Mapping[str, Robot] = {robot.name: robot for robot in (WIDOWX, GOOGLE)}


def robot_of(contract: RobotContract) -> Robot:
    """The robot whose joints a contract names. Raises: ContractError for a contract of neither."""
    for robot in ROBOTS.values():
        if contract.joints.names == robot.joints:
            return robot
    raise ContractError(f"{contract.name}: joints.names: got {list(contract.joints.names)}, expected those of one of "
                        "SIMPLER's robots; use config/robots/simpler_widowx.yaml or simpler_google.yaml")
