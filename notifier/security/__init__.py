"""Who can read what: encryption of stored data, keyed hashes of recipients, and signed tokens."""
