"""`python -m notifier`: the same as the program `notifier`."""

from notifier.cli.app import main

if __name__ == "__main__":
    main()
