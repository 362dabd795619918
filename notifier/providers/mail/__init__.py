"""Addresses, and what answers of mail servers mean: for every provider of mail, and for bounces."""
