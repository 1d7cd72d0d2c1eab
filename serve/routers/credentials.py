"""An organisation's provider keys: stored encrypted, never shown; for root and the scope admin."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from engine.errors import ConfigurationError, CredentialError
from engine.tenants import Credential
from serve.auth import Visit, org_or_root
from serve.bodies import Body, documented, read
from serve.deps import Doors, DoorsDep
from serve.models import CredentialBody
from serve.openapi import problems
from serve.org_answers import CredentialList, CredentialOut
from serve.routers.runs import NAME, Org

router = APIRouter(prefix="/api/v1/organizations/{org}/credentials", tags=["organizations"])

Lister = Annotated[Visit, Depends(org_or_root("admin", "credential.list", "credential"))]
Adder = Annotated[Visit, Depends(org_or_root("admin", "credential.add", "credential"))]
Remover = Annotated[Visit, Depends(org_or_root("admin", "credential.off", "credential"))]
NewCredential = Annotated[Body[CredentialBody], Depends(read(CredentialBody))]
CredentialId = Annotated[str, Path(max_length=100, pattern=NAME)]
EXAMPLE = {"provider": "openai", "secret": "YOUR-ADMIN-KEY", "name": "default"}


@router.get("", response_model=CredentialList, responses=problems(404))
async def list_credentials(visit: Lister, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """List the provider keys of an organisation, without a secret."""
    await doors.known_org(org)
    found = await asyncio.to_thread(doors.work.tenants.credentials, org)
    return {"credentials": [facts(one) for one in found]}


@router.post(
    "",
    status_code=201,
    response_model=CredentialOut,
    responses=problems(404, 409),
    openapi_extra=documented(CredentialBody, {"a provider key": EXAMPLE}),
)
async def add_credential(visit: Adder, body: NewCredential, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Encrypt and store a provider key. It is never shown again."""
    tenants, asked = doors.work.tenants, body.value
    _check_secret(doors, asked)
    credential_id = await asyncio.to_thread(
        tenants.add_credential, org, asked.provider, asked.secret, name=asked.name, audit=visit.carried(org)
    )
    await doors.directory.renew()
    found = await asyncio.to_thread(tenants.credentials, org, asked.provider)
    return facts(next(one for one in found if one.credential_id == credential_id))


@router.delete("/{credential_id}", response_model=CredentialOut, responses=problems(404))
async def deactivate_credential(
    visit: Remover, doors: DoorsDep, org: Org, credential_id: CredentialId
) -> dict[str, Any]:
    """Take a provider key out of use; again is harmless."""
    tenants = doors.work.tenants
    await doors.known_org(org)
    await asyncio.to_thread(tenants.deactivate, org, credential_id, audit=visit.carried(org))
    await doors.directory.renew()
    found = await asyncio.to_thread(tenants.credentials, org)
    return facts(next(one for one in found if one.credential_id == credential_id))


def _check_secret(doors: Doors, asked: CredentialBody) -> None:
    """Raise CredentialError for a key that the provider would refuse: here that is the request's fault."""
    provider = doors.work.catalog.providers.get(asked.provider)
    if provider is None:
        return
    try:
        provider.check_key(asked.secret, base_url=provider.address(doors.settings))
    except ConfigurationError as error:
        raise CredentialError(error.message, fix=error.fix, field="secret") from error


def facts(one: Credential) -> dict[str, Any]:
    """A credential as JSON."""
    return {
        "credential_id": one.credential_id,
        "org_slug": one.org,
        "provider": one.provider,
        "name": one.name,
        "is_active": one.is_active,
        "created_at": one.created_at,
    }
