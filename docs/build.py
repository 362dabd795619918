"""Builds the pages of docs/ into a site: `make docs`. Nothing is loaded from elsewhere.

The pages are written for readers on a Git host, so three things are changed on a copy: links to files of the
repository outside docs/ become their paths, headings get the anchors that Git hosts give them, and list items are
indented as Python-Markdown wants them (4 spaces).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
#: Pages outside docs/ that belong to the site.
GUESTS = ("CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r" *(```|~~~)")
_ITEM = re.compile(r"([-*]|\d+\.) +(?=\S)")
#: What Python-Markdown asks of everything in a list item. Spaces.
_INDENT = 4


def page(text: str, path: Path, guests: Iterable[str] = GUESTS) -> str:
    """The Markdown of the file at `path` as the generator needs it."""
    linked = _LINK.sub(lambda match: _link(match, path, guests), text)
    return "\n".join(_anchored(_reindented(linked.split("\n"))))


def _link(match: re.Match[str], path: Path, guests: Iterable[str]) -> str:
    label, address = match[1], match[2]
    target, hash_, heading = address.partition("#")
    if re.match(r"\w+:", address) or not target:
        return match[0]
    found = (path.parent / target).resolve()
    if found.is_relative_to(DOCS):
        # Pages that lie beside docs/ in the repository lie in it in the site.
        home = DOCS if path.parent == ROOT else path.parent
        return f"[{label}]({os.path.relpath(found, home)}{hash_}{heading})"
    inside = str(found.relative_to(ROOT))
    if inside in guests:
        home = DOCS if path.parent == ROOT else path.parent
        return f"[{label}]({os.path.relpath(DOCS / inside, home)}{hash_}{heading})"
    plain = label.strip("`")
    return f"`{inside}`" if plain == inside or inside.endswith(plain) else f"{label} (`{inside}`)"


def _anchored(lines: list[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    in_fence = False
    for line in lines:
        in_fence ^= bool(_FENCE.match(line))
        heading = None if in_fence else re.fullmatch(r"#+ (.+)", line)
        if heading is None:
            yield line
            continue
        anchor = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
        yield f"{line} {{ #{anchor}{f'-{seen[anchor]}' if seen[anchor] else ''} }}"
        seen[anchor] += 1


def _reindented(lines: list[str]) -> list[str]:
    """List items with 4 spaces before everything but their first line, and an empty line before each list."""
    done: list[str] = []
    position, in_fence = 0, False
    while position < len(lines):
        line = lines[position]
        item = None if in_fence else _ITEM.match(line)
        if item is None:
            in_fence ^= bool(_FENCE.match(line))
            done.append(line)
            position += 1
            continue
        if done and done[-1].strip() and not done[-1].startswith(" " * _INDENT) and not _ITEM.match(done[-1]):
            done.append("")
        end = _end_of_item(lines, position, item.end())
        body = [line[item.end() :], *(one[item.end() :] for one in lines[position + 1 : end])]
        first, *rest = _reindented(body)
        done += [item[1] + " " + first, *(" " * _INDENT + one if one.strip() else "" for one in rest)]
        position = end
    return done


def _end_of_item(lines: list[str], start: int, indent: int) -> int:
    """The line after an item whose text begins at column `indent`."""
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" " * indent)):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def copy(folder: Path) -> None:
    """All pages and pictures, into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "*.toml", "__pycache__"))
    for file in folder.rglob("*.md"):
        source = DOCS / file.relative_to(folder)
        file.write_text(page(source.read_text("utf-8"), source), "utf-8")
    for name in GUESTS:
        (folder / name).write_text(page((ROOT / name).read_text("utf-8"), ROOT / name), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build docs/ into a site.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    copy(output / "pages")
    shutil.copy(DOCS / "zensical.toml", output)
    shutil.rmtree(output / "site", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    ended = subprocess.run([*command, "--config-file", str(output / "zensical.toml")], check=False)
    if ended.returncode == 0:
        sys.stdout.write(f"see them: {sys.executable} -m http.server --bind 127.0.0.1 -d {output / 'site'}\n")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
