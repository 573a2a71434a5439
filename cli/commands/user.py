"""``candelabra user``: accounts of readers, their tokens and watchlists.

Passwords are read from the terminal, or from standard input if it is not a terminal: arguments are
visible to every process on the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.local.chosen_run import of_stack

if TYPE_CHECKING:
    from include.store.candles.merging import Connection

app = typer.Typer(
    name="user",
    no_args_is_help=True,
    help="Accounts of readers: logins, tokens and watchlists.",
)
token = typer.Typer(name="token", no_args_is_help=True, help="API tokens of programs.")
watch = typer.Typer(name="watch", no_args_is_help=True, help="Watchlists, which streamers follow.")
app.add_typer(token)
app.add_typer(watch)

Name = Annotated[str, typer.Argument(help="Name of the account.")]
Label = Annotated[str, typer.Argument(help="Purpose of the token, such as notebook.")]


@app.command()
@of_stack
def add(
    name: Name,
    admin: Annotated[
        bool, typer.Option("--admin", help="Allow to see other accounts and end their sessions.")
    ] = False,
) -> None:
    """Create an account; its password is read from the terminal or from standard input."""
    from include.domain.accounts import Role, checked_name
    from include.store.accounts import users as accounts

    checked_name(name)
    password_hash = _new_password_hash(name)
    with _database() as connection:
        accounts.add_user(connection, name, password_hash, Role.ADMIN if admin else Role.READER)
    typer.echo(f"{name} may log in")


@app.command("list")
@of_stack
def list_() -> None:
    """Show all accounts."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        users = accounts.list_users(connection)
    _table(
        ("name", "role", "made", "sessions", "tokens", "watches", "state"),
        [
            (
                one.name,
                one.role.value,
                _day(one.created_us),
                str(one.sessions),
                str(one.tokens),
                str(one.watched),
                "" if one.disabled_us is None else f"disabled {_day(one.disabled_us)}",
            )
            for one in users
        ],
        none="no accounts yet: candelabra user add NAME",
    )


@app.command()
@of_stack
def passwd(name: Name) -> None:
    """Set a new password; the account's sessions end, its tokens stay."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        accounts.list_tokens(
            connection, name
        )  # before asking for a password: the account must exist
        ended = accounts.set_password(connection, name, _new_password_hash(name))
    typer.echo(f"password of {name} changed; {ended} sessions ended")


@app.command()
@of_stack
def role(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="ROLE", help="reader or admin.")],
) -> None:
    """Set an account's role."""
    from include.domain.accounts import Role
    from include.errors import RejectedInputError
    from include.store.accounts import users as accounts

    roles = [one.value for one in Role]
    if new not in roles:
        raise RejectedInputError(f"{new!r} is no role; should be {' or '.join(roles)}")
    with _database() as connection:
        accounts.set_role(connection, name, Role(new))
    typer.echo(f"{name} is {new}")


@app.command()
@of_stack
def disable(name: Name) -> None:
    """Disable an account immediately; its tokens and watchlist are kept."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        accounts.set_disabled(connection, name, is_disabled=True)
    typer.echo(f"{name} is disabled")


@app.command()
@of_stack
def enable(name: Name) -> None:
    """Enable a disabled account."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        accounts.set_disabled(connection, name, is_disabled=False)
    typer.echo(f"{name} may log in")


@app.command()
@of_stack
def logout(name: Name) -> None:
    """End all sessions of an account immediately; its tokens stay valid."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        ended = accounts.end_sessions(connection, name)
    typer.echo(f"{ended} sessions of {name} ended")


@app.command()
@of_stack
def logins(
    name: Annotated[str | None, typer.Argument(help="Only those of this account.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Newest rows to show.")] = 50,
) -> None:
    """Show the audit log: logins that succeeded, failed or were refused."""
    from include.store.accounts.logins import list_logins

    with _database() as connection:
        found = list_logins(connection, name, most=limit)
    _table(
        ("time", "outcome", "account", "network", "attempts"),
        [
            (
                _day(one.at_us),
                one.outcome.value,
                one.account or "-",
                one.network or "-",
                str(one.attempts),
            )
            for one in found
        ],
        none="no logins in the last 90 days",
    )


@app.command()
@of_stack
def remove(name: Name) -> None:
    """Delete an account, its sessions, tokens and watchlist."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        accounts.remove_user(connection, name)
    typer.echo(f"{name} is deleted")


@token.command("add")
@of_stack
def add_token(
    name: Name,
    label: Label,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=36_500, help="Days until the token expires; default: it never expires."
        ),
    ] = None,
) -> None:
    """Create a token and show it once."""
    from include.domain.accounts import checked_label
    from include.store.accounts import users as accounts
    from include.store.accounts.credentials import new_token, secret_hash

    checked_label(label)
    secret = new_token()
    with _database() as connection:
        accounts.add_token(connection, name, label, secret_hash(secret), days=days)
    typer.echo(
        "The token below is shown only once; send it as `authorization: Bearer …`:", err=True
    )
    typer.echo(secret)


@token.command("list")
@of_stack
def list_tokens(
    name: Annotated[str | None, typer.Argument(help="Only those of this account.")] = None,
) -> None:
    """Show tokens, without their secrets."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        tokens = accounts.list_tokens(connection, name)
    _table(
        ("name", "label", "made", "ends"),
        [
            (
                one.user,
                one.label,
                _day(one.created_us),
                "never" if one.expires_us is None else _day(one.expires_us),
            )
            for one in tokens
        ],
        none="no tokens: candelabra user token add NAME LABEL",
    )


@token.command()
@of_stack
def revoke(name: Name, label: Label) -> None:
    """Revoke a token immediately."""
    from include.store.accounts import users as accounts

    with _database() as connection:
        accounts.revoke_token(connection, name, label)
    typer.echo(f"the token {label!r} of {name} is revoked")


@watch.command("list")
@of_stack
def list_watched(
    name: Annotated[str | None, typer.Argument(help="Only those of this account.")] = None,
) -> None:
    """List the symbols that accounts watch."""
    from include.store.accounts import users as accounts
    from include.store.accounts import watchlists

    with _database() as connection:
        if name is not None:
            accounts.list_tokens(connection, name)  # fails if there is no such account
        found = watchlists.watchlists(connection, name)
    _table(
        ("name", "symbol", "since"),
        [(user, symbol, _day(added_us)) for user, symbol, added_us in found],
        none="nobody watches anything",
    )


# --- inside


@contextmanager
def _database() -> Iterator[Connection]:
    """Connect as the database's owner: only the operator manages accounts."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.store.postgres.pools import connect

    settings = settings_here()
    configure_command_logs("WARNING", settings.log_format)
    url = settings.url_for("owner")
    with connect(url, application_name="candelabra-user") as connection:
        yield connection


def _new_password_hash(name: str) -> str:
    """Read a password: twice on a terminal, otherwise from one line of standard input."""
    from include.domain.accounts import checked_password
    from include.store.accounts.credentials import hash_password

    if sys.stdin.isatty():
        password = str(
            typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
        )
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    return hash_password(checked_password(password))


def _day(moment_us: int) -> str:
    from include.domain.timeframes import from_us

    return f"{from_us(moment_us):%Y-%m-%d %H:%M}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, none: str) -> None:
    """Print aligned columns, for people and for awk."""
    if not rows:
        typer.echo(none, err=True)
        return
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())
