"""Who asks, whether they may, and how often: in this order, before a handler or a body is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from engine.api_keys import Scope, read_key_text
from engine.audit import Audit
from engine.authentication import MAX_HASH_KEYS, Caller, require
from engine.directory import Directory
from engine.errors import AuthenticationError, ForbiddenError, LimitError, TransientError
from engine.validate import SLUG
from serve.deps import Doors, doors_of
from serve.middleware import client_of
from serve.problems import Problem

ORG_KEY = APIKeyHeader(
    name="X-API-Key",
    scheme_name="OrganisationKey",
    description="A key of one organisation: `manta key add ORG`, or POST /organizations/{org}/keys.",
    auto_error=False,
)
ROOT_KEY = APIKeyHeader(
    name="X-CA-Root-Key",
    scheme_name="RootKey",
    description="The platform's root key (CA_ROOT_API_KEY).",
    auto_error=False,
)
NOBODY = "-"
LONGEST_AGENT = 256
LONGEST_USER = 128
MOST_BLOCKED = 10_000
WARM_KEYS = MAX_HASH_KEYS // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried(Audit):
    """An audit that says when it has gone into the row of a change."""

    on_written: Callable[[], None]

    def column(self) -> str:
        """The `audit` column of the row that is the change."""
        self.on_written()
        return Audit(**{one.name: getattr(self, one.name) for one in fields(Audit)}).column()


@dataclass
class Visit:
    """One authenticated request: who asks, and what is said of it in the audit."""

    caller: Caller
    audit: Audit
    state: Any

    def on(self, org: str, resource_id: str | None = None) -> Audit:
        """The audit, now that organisation and thing are known; it is kept for the request's own entry."""
        self.audit = replace(self.audit, org=org, resource_id=resource_id or self.audit.resource_id)
        self.state.audit = self.audit
        return self.audit

    def carried(self, org: str, resource_id: str | None = None) -> Audit:
        """The audit for an engine's call in this process that may find nothing to change.

        Once it has gone into a row there is no further entry.
        """
        plain = self.on(org, resource_id)
        facts = {one.name: getattr(plain, one.name) for one in fields(Audit)}
        return _Carried(**facts, on_written=self.recorded)

    def as_action(self, action: str, resource: str) -> Audit:
        """The same request, as the trail of another kind of thing names it."""
        return replace(self.audit, action=action, resource_type=resource, resource_id=None)

    def recorded(self) -> None:
        """The change has its audit in its own row: no further entry."""
        self.state.recorded = True


Check = Callable[..., Awaitable[Visit]]


def org_or_root(scope: Scope, action: str, resource: str, *, policy: str | None = None) -> Check:
    """A dependency: the organisation's own key with this scope, or the root key.

    `policy` is a request limit beside `requests`.
    """

    async def check(
        request: Request,
        _key: Annotated[str | None, Security(ORG_KEY)] = None,
        _root: Annotated[str | None, Security(ROOT_KEY)] = None,
    ) -> Visit:
        return await enter(request, scope, action, resource, policy=policy)

    return check


def root_only(action: str, resource: str) -> Check:
    """A dependency: the root key."""

    async def check(request: Request, _root: Annotated[str | None, Security(ROOT_KEY)] = None) -> Visit:
        return await enter(request, None, action, resource, policy=None)

    return check


async def enter(
    request: Request, scope: Scope | None, action: str, resource: str, *, policy: str | None
) -> Visit:
    """Let a request in, or raise Problem, AuthenticationError, ForbiddenError, LimitError, TransientError.

    Without a `scope` only root may.
    """
    doors = doors_of(request)
    named = slug_of(request)
    key, root = request.headers.get("x-api-key"), request.headers.get("x-ca-root-key")
    if key is not None and root is not None:
        raise Problem(400, "bad_request", "Both X-API-Key and X-CA-Root-Key were sent.", "Send one of them.")
    directory = doors.directory.current()
    audit = _audit(request, action, resource)
    # What follows may refuse: then this is on record, under the organisation that exists.
    request.state.audit = replace(audit, org=named if named and named in directory.orgs else NOBODY)
    if root is not None:
        caller = await _root_caller(doors, request, root)
    elif key is not None:
        caller, directory = await _org_caller(doors, request, key, directory)
    else:
        # Nobody asked as anybody: that is for the log alone.
        request.state.audit = None
        raise _no_key(scope)
    org = caller.org or named or NOBODY
    visit = Visit(caller, replace(audit, actor=caller.actor), request.state)
    visit.on(org if org in directory.orgs or caller.org else NOBODY)
    if caller.org is not None:
        await _within(doors, request, ("requests", policy) if policy else ("requests",), caller.org)
        if scope is None:
            raise ForbiddenError("Only the root key may do this.", fix="Send it in X-CA-Root-Key.")
        if named not in (None, caller.org):
            visit.on(caller.org, f"refused: {named}")
        require(caller, named or caller.org, scope, directory)
    return visit


def slug_of(request: Request) -> str | None:
    """The organisation that path or query names. Raises Problem for what is no slug."""
    found = request.path_params.get("org") or request.query_params.get("org")
    if found is not None and not SLUG.fullmatch(found):
        said = "is no slug: 3 to 50 lowercase letters, digits or _, beginning with a letter"
        raise Problem(
            422,
            "usage",
            f"The organisation {said}.",
            "Use the organisation's slug, such as acme_corp.",
            [{"parameter": "org", "detail": said}],
        )
    return found


def _no_key(scope: Scope | None) -> AuthenticationError:
    name = "X-API-Key" if scope else "X-CA-Root-Key"
    return AuthenticationError("There is no key in the request.", fix=f"Send one in {name}.", field=name)


def _audit(request: Request, action: str, resource: str) -> Audit:
    user = request.headers.get("x-user-id")
    params = request.path_params
    thing = next((params[name] for name in ("run_id", "key_id", "credential_id") if name in params), None)
    return Audit(
        org=NOBODY,
        action=action,
        actor=NOBODY,
        resource_type=resource,
        resource_id=thing,
        user_id=user[:LONGEST_USER] if user and user.isprintable() else None,
        ip_address=client_of(request.scope),
        user_agent=(request.headers.get("user-agent") or "")[:LONGEST_AGENT] or None,
        request_id=request.state.request_id,
    )


async def _root_caller(doors: Doors, request: Request, key: str) -> Caller:
    try:
        return doors.authenticator.root(key)
    except AuthenticationError:
        await _failed(doors, request)
        raise


async def _org_caller(
    doors: Doors, request: Request, key: str, directory: Directory
) -> tuple[Caller, Directory]:
    if not doors.authenticator.knows(key, directory):
        _refuse_blocked(doors, request)
        # Looked for before it counts as a failure: it may have been made a moment ago. A text that cannot be
        # a key is not worth a look.
        if read_key_text(key) is not None:
            directory = await doors.directory.look_again()
    try:
        return await _checked(doors, key, directory), directory
    except AuthenticationError:
        await _failed(doors, request)
        raise


async def _checked(doors: Doors, key: str, directory: Directory) -> Caller:
    """The caller; the first check of a key may wait for Cloud KMS, so it takes a thread."""
    named = read_key_text(key)
    entry = directory.keys.get(named.key_id) if named else None
    if entry is None:
        return doors.authenticator.org(key, directory)
    name = (entry.org, entry.key_id, entry.mac)
    if name in doors.warm_keys:
        return doors.authenticator.org(key, directory)
    caller = await asyncio.to_thread(doors.authenticator.org, key, directory)
    if len(doors.warm_keys) >= WARM_KEYS:
        doors.warm_keys.clear()
    doors.warm_keys.add(name)
    return caller


async def _failed(doors: Doors, request: Request) -> None:
    """Count a failed attempt of an address. Raises LimitError when it has had too many."""
    _refuse_blocked(doors, request)
    address = client_of(request.scope)
    now = doors.clock()
    try:
        admission = await doors.cluster.take("failures", address)
    except TransientError:
        return
    if not admission.allowed:
        if len(doors.blocked) >= MOST_BLOCKED:
            doors.blocked.clear()
        doors.blocked[address] = now + admission.retry_after_s
        raise _blocked(admission.retry_after_s)


def _refuse_blocked(doors: Doors, request: Request) -> None:
    """Raise LimitError while the request's address has failed too often."""
    address, now = client_of(request.scope), doors.clock()
    if (until := doors.blocked.get(address, now)) > now:
        # Not on record again and again: guessing must not fill the audit trail.
        request.state.audit = None
        raise _blocked(until - now)
    doors.blocked.pop(address, None)


def _blocked(seconds: float) -> LimitError:
    return LimitError(
        "Too many failed attempts from this address.",
        kind="failed_attempts",
        retry_after=timedelta(seconds=seconds),
        fix="Wait, then send a valid key.",
    )


async def _within(doors: Doors, request: Request, policies: Sequence[str], org: str) -> None:
    """Count a request of an organisation; the answer will say what is left. Raises LimitError.

    Reads go on while nobody counts.
    """
    try:
        admissions = await asyncio.gather(*(doors.cluster.take(policy, org) for policy in policies))
    except TransientError:
        if request.method in ("GET", "HEAD"):
            return
        raise
    # The tighter one is the one to tell.
    told = min(admissions, key=lambda one: (one.allowed, one.remaining))
    request.state.limit_headers = told.headers()
    if not told.allowed:
        raise LimitError(
            f"{org} may send {told.limit} {told.policy} a minute.",
            kind="rate_limited",
            retry_after=timedelta(seconds=told.retry_after_s),
            fix="Wait as long as Retry-After says.",
        )
