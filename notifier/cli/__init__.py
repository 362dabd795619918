"""The command line: one more face of the client, the record, the templates and the settings. No rule lives here."""
