"""Everything that can go wrong, as one tree; `code` is API, `fix` is one sentence that says what to do.

MantaError
  + ConfigurationError      the tenant's or operator's to mend; never retried
  |   + UsageError          a wrong argument or request: refused before anything starts
  |   + NotFoundError       a named thing that does not exist
  |   + CredentialError     the provider refuses the key
  |   + DataError           the provider's answer breaks its own contract (negative tokens, wrong type)
  |   + AuditError          a check on a table failed; nothing was published
  + TransientError          worth another try: 429, 5xx, timeouts, a warehouse that is away
  + InternalError           ours to mend; retried, then quarantined
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar


class MantaError(Exception):
    """A failure with a stable `code`, a sentence for people and the one thing to do about it."""

    code: ClassVar[str] = "manta"

    def __init__(self, message: str, *, fix: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} Fix: {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default reduce, and these errors travel between tasks.
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))


def _rebuild(kind: type[MantaError], message: str, state: dict[str, Any]) -> MantaError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class ConfigurationError(MantaError):
    """Wrong until somebody changes something; trying again cannot help."""

    code = "configuration"


class UsageError(ConfigurationError):
    """A wrong argument or request."""

    code = "usage"


class NotFoundError(ConfigurationError):
    """A pipeline, organisation, run or table that does not exist."""

    code = "not_found"


class CredentialError(ConfigurationError):
    """The provider refuses the credential: wrong, revoked, or without the needed permission."""

    code = "credential"


class DataError(ConfigurationError):
    """A provider's answer that breaks its documented contract."""

    code = "data"


class AuditError(ConfigurationError):
    """A declared check failed on a table; its published partitions stay as they were."""

    code = "audit"


class TransientError(MantaError):
    """Likely to pass: rate limits, server errors, timeouts, a connection that broke."""

    code = "transient"

    def __init__(
        self, message: str, *, fix: str = "", field: str | None = None, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message, fix=fix, field=field)
        self.retry_after = retry_after


class InternalError(MantaError):
    """A fault in Manta or a state that should not exist."""

    code = "internal"
