"""An organisation's API keys: for the root key, and for the organisation's own with the scope admin."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from engine.api_keys import ApiKey
from serve.auth import Visit, org_or_root
from serve.bodies import Body, documented, read
from serve.deps import DoorsDep
from serve.models import KeyBody
from serve.openapi import problems
from serve.org_answers import KeyList, KeyOut, NewKeyOut
from serve.routers.runs import NAME, Org

router = APIRouter(prefix="/api/v1/organizations/{org}/keys", tags=["organizations"])

Lister = Annotated[Visit, Depends(org_or_root("admin", "key.list", "api_key"))]
Adder = Annotated[Visit, Depends(org_or_root("admin", "key.add", "api_key"))]
Revoker = Annotated[Visit, Depends(org_or_root("admin", "key.revoke", "api_key"))]
NewKey = Annotated[Body[KeyBody], Depends(read(KeyBody))]
KeyId = Annotated[str, Path(max_length=100, pattern=NAME, examples=["0123456789ab"])]
EXAMPLE = {"name": "nightly loads", "scopes": ["run", "read"], "expires_in_days": 90}


@router.get("", response_model=KeyList, responses=problems(404))
async def list_keys(visit: Lister, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """List the keys of an organisation, revoked ones too."""
    await doors.known_org(org)
    found = await asyncio.to_thread(doors.work.api_keys.list, org)
    return {"keys": [facts(key) for key in found]}


@router.post(
    "",
    status_code=201,
    response_model=NewKeyOut,
    responses=problems(404),
    openapi_extra=documented(KeyBody, {"a key": EXAMPLE}),
)
async def add_key(visit: Adder, body: NewKey, doors: DoorsDep, org: Org) -> dict[str, Any]:
    """Make a key. Its text is in this answer and nowhere else."""
    await doors.known_org(org)
    asked = body.value
    days = asked.expires_in_days
    key, text = await asyncio.to_thread(
        doors.work.api_keys.add,
        org,
        name=asked.name,
        scopes=asked.scopes,
        expires_at=doors.now() + timedelta(days=days) if days else None,
        audit=visit.carried(org),
    )
    await doors.directory.renew()
    return {**facts(key), "api_key": text}


@router.delete("/{key_id}", response_model=KeyOut, responses=problems(404))
async def revoke_key(visit: Revoker, doors: DoorsDep, org: Org, key_id: KeyId) -> dict[str, Any]:
    """Take a key out of use for good; again is harmless."""
    await doors.known_org(org)
    key = await asyncio.to_thread(doors.work.api_keys.revoke, org, key_id, audit=visit.carried(org))
    await doors.directory.renew()
    return facts(key)


def facts(key: ApiKey) -> dict[str, Any]:
    """A key as JSON."""
    return {
        "key_id": key.key_id,
        "org_slug": key.org,
        "name": key.name,
        "scopes": list(key.scopes),
        "is_active": key.is_active,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
    }
