"""The licences of what the image ships, by the packages' own metadata.

`make check` refuses those that would bind the service, `make licences` lists all.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

SHIPPED = Path(__file__).parents[2] / "requirements" / "production.txt"
#: The LGPL lets others use a library as it is, which is all that we do.
_BINDING = re.compile(
    r"(?<!L)(?<!Lesser )(?<!Library or Lesser )(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE
)
_LONGEST = 80


def main() -> int:
    """Print what is wrong, or with --list everything; 0: nothing is wrong."""
    licences = {name: licence(distribution(name)) for name in shipped()}
    wrong = {name: found for name, found in licences.items() if not found or is_binding(found)}
    for name, found in (licences if "--list" in sys.argv else wrong).items():
        print(f"{name}: {found or 'says no licence'}")
    return bool(wrong)


def shipped() -> list[str]:
    """Without those of other platforms."""
    lines = re.findall(r"^[\w.-]+==[^\\\n]+", SHIPPED.read_text("utf-8"), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    return [one.name for one in wanted if one.marker is None or one.marker.evaluate()]


def licence(package: Distribution) -> str:
    """The expression, else the classifiers, else the first line of the old field."""
    said: Any = package.metadata  # the headers of a mail, which its type does not say
    classifiers = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or () if "License ::" in one]
    old = (said.get("License") or "").strip().splitlines()
    return said.get("License-Expression") or ", ".join(classifiers) or (old[0][:_LONGEST] if old else "")


def is_binding(text: str) -> bool:
    return bool(_BINDING.search(text))


if __name__ == "__main__":
    sys.exit(main())
