"""A run's progress in, a PolicyStatus message out."""

from __future__ import annotations

from vla_msgs.msg import PolicyStatus

from vla_policy.observation.buffer import ObservationBuffer
from vla_policy.run import PolicyRun
from vla_policy.types import NS_PER_S
from vla_policy_node.messages import make_header, ns_to_stamp

MS_PER_NS = 1e3 / NS_PER_S


def status_message(now_ns: int, active: bool, run: PolicyRun | None, buffer: ObservationBuffer,
                   history_frames: int) -> PolicyStatus:
    """The status for the instant `now_ns` (ROS time)."""
    rejected = {name: sum(counts.values()) for name, counts in buffer.rejected().items() if counts}
    msg = PolicyStatus(header=make_header(now_ns, ""), state=PolicyStatus.IDLE if active else PolicyStatus.UNCONFIGURED,
                       rejected_channels=list(rejected), rejected_counts=list(rejected.values()))
    if run is None:
        return msg
    progress, timings_ms = run.progress, run.progress.timings_ms
    msg.state = PolicyStatus.WAITING if progress.waiting_for else PolicyStatus.RUNNING
    msg.run_id = run.request.run_id
    msg.instruction = run.request.instruction
    msg.detail = progress.waiting_for
    msg.observation_stamp = ns_to_stamp(progress.observation_ns)
    msg.inferences = progress.inferences
    msg.history_frames = history_frames
    msg.image_age_ms = progress.image_age_ns * MS_PER_NS
    msg.decode_ms = timings_ms.get("decode", 0.0)
    msg.preprocess_ms = timings_ms.get("preprocess", 0.0)
    msg.model_ms = timings_ms.get("model", 0.0)
    msg.postprocess_ms = timings_ms.get("postprocess", 0.0)
    msg.publish_ms = timings_ms.get("publish", 0.0)
    msg.total_ms = timings_ms.get("total", 0.0)
    return msg
