"""Messages that nobody should send, made at random from a seed: what every reader of a broker has to survive."""
