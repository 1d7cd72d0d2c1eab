"""The ways in: the command line, and the HTTP API. Nothing here decides anything."""
