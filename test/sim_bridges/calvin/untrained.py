"""CALVIN_ROOT and a folder in, an untrained `tiny` bundle that reads CALVIN's sentences out.

`CALVIN_ROOT=DIR PYTHONPATH=test/vla_policy python test/sim_bridges/calvin/untrained.py FOLDER`
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from bundles import write_bundle

from sim_bridges.calvin.checkout import find_checkout


def main(folder: str) -> None:
    """Write the bundle."""
    sentences = yaml.safe_load(find_checkout().sentences.read_text(encoding="utf-8"))
    write_bundle(Path(folder), "calvin", [said for several in sentences.values() for said in several],
                 text_length=20)


if __name__ == "__main__":
    main(sys.argv[1])
