"""The program `notifier`, also as `python -m notifier`."""

from __future__ import annotations

import sys

from notifier.domain.errors import add_extra


def main() -> None:
    """Where only a producer's packages are installed, one line says what commands need; the exit code is 2."""
    try:
        from notifier.cli.app import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "notifier":
            raise
        sys.stderr.write(f"error: the commands need {error.name}: {add_extra('worker')}\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
