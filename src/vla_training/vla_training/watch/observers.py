"""A training run in, its observers out: what the trainer's loop tells of its steps, and who listens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from vla_policy.model.vla import VLAModel
from vla_training.training.report import RunEnd, StepReport, ValidationReport
