"""The command line. It reads, asks and prints; no rule lives here."""
