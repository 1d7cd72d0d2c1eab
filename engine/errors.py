"""Everything that can go wrong, as one tree; `code` is API, `fix` is one sentence that says what to do.

MantaError
  + ConfigurationError      the tenant's or operator's to mend; never retried
  |   + UsageError          a wrong argument or request: refused before anything starts
  |   |   + StateError      a right request at the wrong time: the thing is in another state
  |   + NotFoundError       a named thing that does not exist
  |   + CredentialError     the provider refuses the key
  |   + DataError           the provider's answer breaks its own contract (negative tokens, wrong type)
  |   + AuditError          a check on a table failed; nothing was published
  + AuthenticationError     nobody known asks
  + ForbiddenError          somebody known asks for what is not theirs
  + LimitError              too much at once or in all: later, as `retry_after` says
  + TransientError          worth another try: 429, 5xx, timeouts, a warehouse that is away
  + InternalError           ours to mend; retried, then quarantined
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Literal


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
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class ConfigurationError(MantaError):
    """Wrong until somebody changes something; trying again cannot help."""

    code = "configuration"


class UsageError(ConfigurationError):
    """A wrong argument or request."""

    code = "usage"


class StateError(UsageError):
    """What is asked cannot be done to a thing in its present state: cancelling a run that has ended."""

    code = "conflict"


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


class AuthenticationError(MantaError):
    """No key, or one that is unknown, revoked or expired."""

    code = "unauthenticated"


class ForbiddenError(MantaError):
    """A valid key that may not do this: another organisation's, a missing scope, a suspended organisation."""

    code = "forbidden"


LimitKind = Literal[
    "rate_limited", "failed_attempts", "daily_quota", "monthly_quota", "concurrent_runs", "too_many_runs"
]


class LimitError(MantaError):
    """A limit is reached; `kind` says which and becomes the `code`."""

    def __init__(self, message: str, *, kind: LimitKind, retry_after: timedelta, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        vars(self)["code"] = kind
        self.retry_after = retry_after


class InternalError(MantaError):
    """A fault in Manta or a state that should not exist."""

    code = "internal"
