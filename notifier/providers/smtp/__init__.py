"""The SMTP provider: how a mail is composed, sent and, when it comes back, read."""
