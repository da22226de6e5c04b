"""What git says of the checkout that the package is in."""

import subprocess
from pathlib import Path


def git(*arguments: str) -> str | None:
    """The output of a git command; None outside of a checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
