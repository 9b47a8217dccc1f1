"""A folder in, one episode written by the MCAP project's own library out, with checksums and zstd as rosbag2 writes it.

Needs `pip install mcap`: `python make_fixture.py ../fixtures/recorded/one`. Same episode as `expected` in its test.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import Reader

sys.path.append(str(Path(__file__).resolve().parents[2]))
from make_bags import Motion, record_episode, record_of, tabletop  # noqa: E402

from vla_policy.recording import write_episode  # noqa: E402

SIZE, MOTION = 16, Motion(seconds=1.0, camera_hz=30.0, state_hz=50.0, delay_s=0.004, jitter_s=0.003, seed=6)


def main() -> None:
    """Write the episode."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch, (target / "one.mcap").open("wb") as file:
        writer = Writer(file, chunk_size=20_000, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="mcap")
        with Reader(record_episode(Path(scratch) / "one", tabletop(SIZE), MOTION)) as bag:
            channels = {}
            for connection in bag.connections:
                schema = writer.register_schema(connection.msgtype, "ros2msg", connection.msgdef.data.encode())
                channels[connection.id] = writer.register_channel(connection.topic, "cdr", schema)
            for number, (connection, received_ns, raw) in enumerate(bag.messages()):
                writer.add_message(channels[connection.id], received_ns, bytes(raw), received_ns, number)
        writer.finish()
    write_episode(target, record_of(tabletop(SIZE), MOTION.seconds))


if __name__ == "__main__":
    main()
