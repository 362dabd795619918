"""The SMTP provider: composes and sends mails."""
