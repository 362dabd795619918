"""The Twilio provider."""
