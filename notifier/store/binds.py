"""Parameters of statements whose types Postgres cannot infer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.types import Text


def uuid(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=PG_UUID(as_uuid=True))


def uuids(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(PG_UUID(as_uuid=True)))


def texts(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=ARRAY(Text()))


IDS = uuids("ids")
BOUNDS = (uuid("low"), uuid("high"))


def among(column: Any, ids: Sequence[UUID]) -> ColumnElement[bool]:
    """`column = ANY(ids)`: a single parameter, however many ids there are."""
    found: ColumnElement[bool] = column == func.any(bindparam(None, list(ids), type_=ARRAY(PG_UUID(as_uuid=True))))
    return found
