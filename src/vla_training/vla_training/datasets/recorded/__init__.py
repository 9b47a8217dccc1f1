"""Episodes recorded as MCAP bags in, samples as the policy node would take out; for whoever trains or converts."""

from vla_training.datasets.recorded.reader import RecordedSource, open_recorded

__all__ = ["RecordedSource", "open_recorded"]
