"""Write pools and connections to Airflow's metadata database.

`candelabra migrate` and the local Airflow run ``python -m dags.support.pools_and_connections`` as a
separate process, because only ``dags/`` may import Airflow. The request arrives on standard input,
so that no password appears in the process list or in a file. The answer is the last line of
standard output.

Request:

    {"pools": {NAME: {"slots", "description", "include_deferred"}}, "connections": {ID: {…}}}

Answer, and answer after a failure:

    {"pools": {NAME: "created" | "updated" | "unchanged"}, "connections": {…}, "skipped": WHY}
    {"error": WHAT, "transient": BOOL}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NO_KEY = (
    "AIRFLOW__CORE__FERNET_KEY is not set, and Airflow would store the passwords of connections "
    "unencrypted"
)


def put(request: Mapping[str, Any]) -> dict[str, Any]:
    """Create or update the pools and connections in one transaction; return the outcome of each."""
    from airflow.models.crypto import get_fernet
    from airflow.utils.session import create_session

    answer: dict[str, Any] = {"pools": {}, "connections": {}, "skipped": ""}
    with create_session() as session:
        for name, wanted in request["pools"].items():
            answer["pools"][name] = _put_pool(session, name, wanted)
        if not get_fernet().is_encrypted:
            return answer | {"skipped": NO_KEY}
        for conn_id, wanted in request["connections"].items():
            answer["connections"][conn_id] = _put_connection(session, conn_id, wanted)
    return answer


def _put_pool(session: Session, name: str, wanted: Mapping[str, Any]) -> str:
    from airflow.models.pool import Pool
    from sqlalchemy import select

    pool = session.scalar(select(Pool).where(Pool.pool == name))
    if pool is None:
        session.add(Pool(pool=name, **wanted))
        return "created"
    return _set(pool, wanted)


def _put_connection(session: Session, conn_id: str, wanted: Mapping[str, Any]) -> str:
    from airflow.models.connection import Connection
    from sqlalchemy import select

    connection = session.scalar(select(Connection).where(Connection.conn_id == conn_id))
    if connection is None:
        session.add(Connection(conn_id=conn_id, **wanted))
        return "created"
    return _set(connection, wanted)


def _set(row: Any, wanted: Mapping[str, Any]) -> str:
    changed = {name: value for name, value in wanted.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    return "updated" if changed else "unchanged"


def main() -> None:
    """Read the request from standard input and print the answer; exit code 1 on failure."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

    request = json.load(sys.stdin)
    try:
        answer = put(request)
    except (ProgrammingError, OperationalError, InterfaceError) as error:
        # error.orig only: the full text contains the statement's parameters, such as passwords.
        text = " ".join(str(error.orig).split())
        has_no_tables = isinstance(error, ProgrammingError) or "no such table" in text
        if has_no_tables:
            text = f"its metadata database has no tables of this version ({text}): "
            text += "run `airflow db migrate` first"
        answer = {"error": text, "transient": not has_no_tables}
    except DBAPIError as error:
        answer = {"error": " ".join(str(error.orig).split()), "transient": False}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    sys.exit("error" in answer)


if __name__ == "__main__":
    main()
