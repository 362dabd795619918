"""The Vonage provider."""
