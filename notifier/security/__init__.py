"""Encryption of stored data, hashes of recipients and messages, and signed tokens."""
