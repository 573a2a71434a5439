"""`dbt docs` as a task that works only where its pages would change."""

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
"""dbt's parsed project, between runs."""

OLDEST_S = 86_400.0
"""Pages older than this are made anew: they tell sizes and columns of what is in the database."""

PAGE = "static_index.html"
FINGERPRINT = "fingerprint"


class DbtDocs(DbtDocsLocalOperator):
    """Write `dbt docs` to one page in a folder, unless what is there is of today and this project.

    Skipped then: another `dbt docs` every five minutes would say the same.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            **arguments, dbt_cmd_flags=["--static"], callback=_keep, should_store_compiled_sql=False
        )

    def execute(self, context: Any, **arguments: Any) -> None:
        """Make the page.

        Raises:
            AirflowSkipException: the page is not to be made.
        """
        kept, wanted = _folder() / FINGERPRINT, fingerprint(Path(self.project_dir))
        if (
            kept.exists()
            and kept.read_text() == wanted
            and time.time() - kept.stat().st_mtime < OLDEST_S
        ):
            raise AirflowSkipException(f"{_folder() / 'index.html'} is of today and this project")
        super().execute(context, **arguments)
        kept.write_text(wanted)


def fingerprint(project: Path) -> str:
    """A digest of what the pages are made from: the text of a dbt project."""
    digest = hashlib.sha256()
    for file in sorted(project.rglob("*")):
        inside = file.relative_to(project)
        if file.suffix in {".sql", ".yml", ".md"} and inside.parts[0] not in {"target", "logs"}:
            digest.update(f"{inside}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _folder() -> Path:
    return settings().candelabra_home.absolute() / "dbt" / "docs"


def _keep(project: str, **_: Any) -> None:
    """Called by Cosmos with the copy of the project in which dbt ran."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{PAGE}"
    shutil.copyfile(Path(project) / "target" / PAGE, fresh)
    fresh.replace(folder / "index.html")


def connect_dbt(context: Any, operator: Any) -> None:
    """Give a dbt operator its database, when it runs; a Cosmos interceptor.

    Not at parse time, and in no template: the rendered fields of a task can be read in the UI.
    """
    from include.jobs.dbt_env import dbt_environment

    current = settings()
    environment = dbt_environment(current.url_for("dbt"), home=current.candelabra_home)
    # Cosmos runs dbt in a copy of the project and looks for its files there.
    own = {"DBT_PROJECT_DIR", "DBT_PROFILES_DIR", "DBT_TARGET_PATH", "DBT_LOG_PATH"}
    operator.env = {name: value for name, value in environment.items() if name not in own}
