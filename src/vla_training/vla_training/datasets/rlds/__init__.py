"""RLDS data sets, as TensorFlow Datasets publishes them, in; episodes out. For whoever trains; no TensorFlow.

Whoever has TensorFlow may read the same folder by `tfds.builder_from_directory`; `vla-training[rlds]` installs it.
"""

from vla_training.datasets.rlds.reader import RldsSource, open_rlds

__all__ = ["RldsSource", "open_rlds"]
