"""The snippets are programs and projects of their own: `test_snippets.py` runs them, each in its own process."""

collect_ignore = ["snippets"]
