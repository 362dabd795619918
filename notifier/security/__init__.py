"""Who can read what: encryption of stored data, hashes of recipients and messages, signed tokens."""
