"""The command line. It reads, asks and prints, and has no rules of its own."""
