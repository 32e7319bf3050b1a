"""The plugins of this program: importing one enables it."""

import static_file_plugin  # noqa: F401 (enabled)
