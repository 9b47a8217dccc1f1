"""Fixtures: a policy server, an observation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from server_rig import CONTRACT, CountingPolicy, serving

from vla_policy.remote.answering import Batching
from vla_policy.remote.convention import Convention
from vla_policy.remote.server import ServerOptions
from vla_policy.remote.session import Session
from vla_policy.types import Observation, Pose


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server: serve(make_policy=…, feels=…, batching=…, **ServerOptions) -> its address."""
    with ExitStack() as stack:

        def start(make_policy: Callable[[], object] = CountingPolicy, feels: bool = False,
                  batching: Batching | None = None, **options: object) -> str:
            settings = ServerOptions(port=0, **options)
            return stack.enter_context(
                serving(lambda: Session(make_policy(), CONTRACT, Convention(), feels), settings, batching))

        yield start


@pytest.fixture
def observation() -> Observation:
    rng = np.random.default_rng(1)
    images = {n: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for n, c in CONTRACT.cameras.items()}
    pose = Pose(np.array([0.4, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
    return Observation(123_000_000, images, np.linspace(0.0, 0.4, len(CONTRACT.joints.names)), pose)
