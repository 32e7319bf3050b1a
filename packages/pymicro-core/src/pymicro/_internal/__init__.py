"""Pure helpers that are no part of the public API."""
