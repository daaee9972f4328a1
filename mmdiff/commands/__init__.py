"""Parsers of commands with many options; every handler imports what it needs when it is called."""
