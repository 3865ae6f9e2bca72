"""How commands of the product end when they cannot do what they are for."""

from __future__ import annotations

import sys

from support_desk.settings import SettingsError

#: Exit status of a program that was configured wrongly.
EXIT_CONFIGURATION = 78


def reason(error: Exception) -> str:
    """Return the first line of an error; that of a database driver without SQLAlchemy's additions."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


def failed(what: str, error: Exception) -> int:
    """Say what cannot be done and why, each problem of the settings on a line, and return the exit status."""
    if isinstance(error, SettingsError):
        sys.stderr.write(f"support_desk cannot {what}:\n" + "".join(f"  - {line}\n" for line in str(error).split("\n")))
        return EXIT_CONFIGURATION
    sys.stderr.write(f"support_desk cannot {what}: {reason(error)}\n")
    return 1
