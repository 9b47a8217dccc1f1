"""CALVIN's published data on disk in, episodes out; for whoever converts or trains."""

from vla_training.datasets.calvin.reader import CalvinSource, open_play

__all__ = ["CalvinSource", "open_play"]
