"""Settings: environment variables, secret files and `notifier.toml`, read once when a program starts."""
