"""Settings: keywords, environment and command line, brought together and checked before anything is opened."""

from pymicro.settings._argv import HelpRequested
from pymicro.settings._choices import Choice
from pymicro.settings._reference import option_tables, reference_page
from pymicro.settings._settings import Settings

__all__ = ["Choice", "HelpRequested", "Settings", "option_tables", "reference_page"]
