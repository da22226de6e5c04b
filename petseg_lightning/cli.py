"""`petseg <door> [overrides]`: the same as `python -m petseg_lightning.<door>`."""

import runpy
import sys

from petseg_lightning import __version__
from petseg_lightning.conf_tree import doors
from petseg_lightning.help_text import overview
from petseg_lightning.suggestions import unknown_door


def main() -> None:
    """Run the door that the first argument names, as `__main__`: processes that it starts look there."""
    door = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if door in ("--help", "-h"):
        print(overview())
    elif door == "--version":
        print(f"petseg_lightning {__version__}")
    elif door in doors():
        del sys.argv[1]
        runpy.run_module(f"petseg_lightning.{door}", run_name="__main__", alter_sys=True)
    else:
        print(f"error: {unknown_door(door)}", file=sys.stderr)
        sys.exit(2)
