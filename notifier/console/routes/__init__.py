"""The pages of the console, one file for each page or for a few that belong together."""
