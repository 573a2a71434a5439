"""Connect dbt operators to the database, and write the dbt documentation when the project has
changed, or the page is a day old."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowSkipException
from cosmos.operators.local import DbtDocsLocalOperator

from dags.support.policies import settings

DBT_CACHE = Path(conf.get("cosmos", "cache_dir", fallback=gettempdir())) / "candelabra"
"""Keeps the parsed dbt project between runs."""

MAX_AGE_S = 86_400.0
"""Older pages are rewritten: they show table sizes and columns from the database."""

PAGE = "static_index.html"
FINGERPRINT = "fingerprint"


class DbtDocs(DbtDocsLocalOperator):
    """Write the dbt documentation as one HTML page.

    Skipped if the page is less than a day old and the dbt project has not changed.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            **arguments,
            dbt_cmd_flags=["--static"],
            callback=_store_page,
            should_store_compiled_sql=False,
        )

    def execute(self, context: Any, **arguments: Any) -> None:
        """Write the page.

        Raises:
            AirflowSkipException: the page is up to date.
        """
        stored, current = _folder() / FINGERPRINT, fingerprint(Path(self.project_dir))
        if (
            stored.exists()
            and stored.read_text() == current
            and time.time() - stored.stat().st_mtime < MAX_AGE_S
        ):
            raise AirflowSkipException(f"{_folder() / 'index.html'} is up to date")
        super().execute(context, **arguments)
        stored.write_text(current)


def fingerprint(project: Path) -> str:
    """Hash the SQL, YAML and Markdown files of a dbt project."""
    digest = hashlib.sha256()
    for file in sorted(project.rglob("*")):
        inside = file.relative_to(project)
        if file.suffix in {".sql", ".yml", ".md"} and inside.parts[0] not in {"target", "logs"}:
            digest.update(f"{inside}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _folder() -> Path:
    return settings().candelabra_home.absolute() / "dbt" / "docs"


def _store_page(project: str, **_: Any) -> None:
    """Cosmos callback; ``project`` is the copy of the project in which dbt ran."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{PAGE}"
    shutil.copyfile(Path(project) / "target" / PAGE, fresh)
    fresh.replace(folder / "index.html")


def connect_dbt(context: Any, operator: Any) -> None:
    """Set the database variables of a dbt operator at run time; a Cosmos interceptor.

    Setting them at parse time or in a template would show the password in the UI.
    """
    from include.jobs.dbt_env import dbt_environment

    current = settings()
    environment = dbt_environment(current.url_for("dbt"), home=current.candelabra_home)
    # Cosmos runs dbt in a copy of the project and sets these paths itself.
    set_by_cosmos = {"DBT_PROJECT_DIR", "DBT_PROFILES_DIR", "DBT_TARGET_PATH", "DBT_LOG_PATH"}
    operator.env = {name: value for name, value in environment.items() if name not in set_by_cosmos}
