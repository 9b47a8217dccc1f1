"""Two model files in, nothing out where they describe the same model; else an error that names what differs."""

from __future__ import annotations

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile


def check_same_model(got: ModelFile, expected: ModelFile, where: str) -> None:
    """Refuse weights made with another model config. Raises: ConfigError naming what differs."""
    if got.model != expected.model:
        changed = [
            f"{key}: got {value!r}, expected {getattr(expected.model, key)!r}"
            for key, value in got.model
            if value != getattr(expected.model, key)
        ]
        raise ConfigError(
            f"{where}: made with another model config ({'; '.join(changed)}); use its config, or start anew"
        )
