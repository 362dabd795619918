"""How a program runs: its orderly shutdown, and the number of connections that its servers take."""
