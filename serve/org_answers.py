"""What answers about an organisation look like: itself, its keys, credentials, quota and audit."""

from __future__ import annotations

from datetime import datetime

from serve.answers import Answer


class OrganizationOut(Answer):
    """An organisation."""

    org_slug: str
    name: str
    admin_email: str
    dataset: str
    status: str
    purge_after: datetime | None
    created_at: datetime


class OrganizationList(Answer):
    """Every organisation, removed ones too, by slug."""

    organizations: list[OrganizationOut]


class RemovalOut(Answer):
    """What goes with an organisation, or went. `pending_data_keys` are overwritten by a later purge."""

    org_slug: str
    dry_run: bool
    status: str
    dataset: str
    purge_after: datetime
    keys: int
    credentials: int
    tables: list[str]
    active_runs: list[str]
    pending_data_keys: int


class KeyOut(Answer):
    """An API key, without anything that would authenticate."""

    key_id: str
    org_slug: str
    name: str
    scopes: list[str]
    is_active: bool
    expires_at: datetime | None
    created_at: datetime


class NewKeyOut(KeyOut):
    """A new API key with its text, which is kept nowhere and shown only here."""

    api_key: str


class KeyList(Answer):
    """The keys of an organisation, revoked ones too, oldest first."""

    keys: list[KeyOut]


class CredentialOut(Answer):
    """A stored provider key, without it."""

    credential_id: str
    org_slug: str
    provider: str
    name: str
    is_active: bool
    created_at: datetime


class CredentialList(Answer):
    """The provider keys of an organisation, deactivated ones too, oldest first."""

    credentials: list[CredentialOut]


class LimitsOut(Answer):
    """Runs accepted per UTC day and month, and unfinished at once; null is unlimited."""

    daily: int | None
    monthly: int | None
    concurrent: int | None


class UsageOut(Answer):
    """Runs accepted today and this month (UTC), and unfinished now."""

    today: int
    month: int
    concurrent: int


class QuotaOut(Answer):
    """An organisation's plan, limits and what is used of them."""

    org_slug: str
    plan: str
    is_custom: bool
    limits: LimitsOut
    usage: UsageOut


class AuditOut(Answer):
    """One entry of the audit trail. `user_id` is only claimed."""

    audit_id: str
    action: str
    actor: str
    user_id: str | None
    resource_type: str
    resource_id: str | None
    status: str
    detail: str | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    created_at: datetime


class AuditPage(Answer):
    """Entries, newest first."""

    org_slug: str
    entries: list[AuditOut]
    next_cursor: str | None
