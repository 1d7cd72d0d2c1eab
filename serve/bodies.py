"""Reading bodies: any JSON object, whatever the content type says; strict about everything in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import Request
from pydantic import BaseModel, ValidationError

from serve.problems import Problem, of_validation


@dataclass(frozen=True)
class Body[M: BaseModel]:
    """A body as its model, and the fingerprint of the request it came with."""

    value: M
    fingerprint: str


def read[M: BaseModel](model: type[M]) -> Callable[[Request], Awaitable[Body[M]]]:
    """A dependency that reads the body as this model; an empty body is {}. Raises Problem."""

    async def body(request: Request) -> Body[M]:
        found = parse(await request.body())
        facts = json.dumps(found, sort_keys=True, separators=(",", ":"))
        text = f"{request.method} {request.scope['path']} {facts}"
        try:
            value = model.model_validate(found)
        except ValidationError as error:
            raise of_validation(error.errors(include_url=False), body=True) from error
        return Body(value, hashlib.sha256(text.encode()).hexdigest())

    return body


def documented(
    model: type[BaseModel], examples: dict[str, dict[str, Any]], *, required: bool = True
) -> dict[str, Any]:
    """What FastAPI is told about such a body: it does not see that one is read."""
    named = {name: {"summary": name, "value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": model.model_json_schema(), "examples": named}}
    return {"requestBody": {"required": required, "content": content}}


def parse(raw: bytes) -> dict[str, Any]:
    """The object in a body. Raises Problem (400) for what is no JSON object or says a key twice."""
    if not raw.strip():
        return {}
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
        # Half of a surrogate pair can be written in JSON and in nothing behind it.
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise _unreadable("is no UTF-8") from error
    except RecursionError as error:
        raise _unreadable("is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _unreadable(f"is no JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:
        raise _unreadable(str(error)) from error
    if not isinstance(found, dict):
        raise _unreadable("is no JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"says {twice[:40]!r} twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no JSON number")


def _unreadable(said: str) -> Problem:
    return Problem(
        400, "bad_request", f"The body {said}.", 'Send one JSON object, such as {"date": "2026-01-31"}.'
    )
