"""`make release-check`: whether this commit can be tagged as the version that it says it is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Print what is missing, or how to tag it; 0: nothing is missing."""
    version = str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])
    tag = f"v{version}"
    problems = list(changelog_problems((ROOT / "CHANGELOG.md").read_text("utf-8"), version))
    if _git("status", "--porcelain"):
        problems.append("there are changes that are not committed")
    if _git("tag", "--list", tag) and _git("rev-parse", f"{tag}^{{commit}}") != _git("rev-parse", "HEAD"):
        problems.append(f"{tag} is another commit: raise the version in pyproject.toml")
    for problem in problems:
        print(problem)
    if not problems:
        print(f"git tag --annotate {tag} --message 'notifier {version}' && git push origin {tag}")
    return bool(problems)


def changelog_problems(text: str, version: str) -> list[str]:
    """The newest heading is that of the version, with its day, and nothing waits above it."""
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    versions = [one for one in headings if one[0] != "Unreleased"]
    if not versions or versions[0][0] != version:
        newest = versions[0][0] if versions else "none"
        return [f"CHANGELOG.md: the newest version is {newest}, that of pyproject.toml {version}"]
    if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", versions[0][1]):
        return [f"CHANGELOG.md: write ## [{version}] - YYYY-MM-DD"]
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## ")[0].strip()
    return ["CHANGELOG.md: something is still under Unreleased"] if unreleased else []


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
