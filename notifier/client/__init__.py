"""What producers import: the client, the transactional outbox and the relay that empties it."""
