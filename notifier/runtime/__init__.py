"""How a program runs: its orderly end, and how many connections its servers take."""
