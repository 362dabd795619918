"""Messages that nobody should send, made randomly from a seed: everything that readers of a broker have to
survive."""
