"""Whether a known vulnerability is in a version that requirements.lock pins, by the advisories of osv.dev.

One request about all of them, also those for other systems and Pythons, which pip-audit leaves out. Exit code 1 with a
list, or 0; where the advisories cannot be read, 0 and a line that says so. `OSV_URL` is the address of another copy.
"""

import json
import os
import re
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

URL = os.environ.get("OSV_URL", "https://api.osv.dev/v1/querybatch")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def main(lock: Path) -> int:
    """The exit code."""
    pins = PIN.findall(lock.read_text("utf-8"))
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in pins]
    request = urllib.request.Request(
        URL, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            results = json.load(answer)["results"]
        found = [[one["id"] for one in result.get("vulns", [])] for result in results]
        if len(found) != len(pins):
            raise ValueError(f"{len(found)} answers to {len(pins)} questions")
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
        print(f"Skipped: the advisories at {URL} cannot be read ({type(error).__name__}: {error})")
        return 0
    for (name, version), names in zip(pins, found, strict=True):
        if names:
            print(f"{name} {version}: {', '.join(f'https://osv.dev/vulnerability/{one}' for one in names)}")
    if any(found):
        print("error: vulnerable versions are pinned; raise them with make lock, or replace the package")
        return 1
    print(f"No known vulnerability in {len(pins)} pinned versions")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
