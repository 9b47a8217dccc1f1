"""What of a model is trained, and how, in; the prepared model out, and plain weights again for a bundle.

The trainer imports what is named here; `config` is a part of its own configuration.
"""

from vla_training.adapt.config import AdaptConfig, LoraSettings
from vla_training.adapt.lora import merged
from vla_training.adapt.parts import Share, trained_shares, wrap_units
from vla_training.adapt.prepare import prepare_model
from vla_training.adapt.suggest import suggest

__all__ = ["AdaptConfig", "LoraSettings", "Share", "merged", "prepare_model", "suggest", "trained_shares", "wrap_units"]
