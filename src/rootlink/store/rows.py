"""From rows to records: a record's fields are columns of the same name, in the same order."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Table


def columns(table: Table, record: type[msgspec.Struct]) -> list[Column[Any]]:
    """For `select(*columns(table, Record))`, whose rows are `Record(*row)`."""
    return [table.c[field] for field in record.__struct_fields__]
