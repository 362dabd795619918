"""What comes back from outside about a message that a provider took, and what follows from it."""
