"""Mail as such, for every provider of mail: addresses, and what the answers of mail servers mean."""
