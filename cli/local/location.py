"""Settings of a command typed on the machine where `demo` or `up` runs."""

from __future__ import annotations

from cli.local.chosen_run import chosen_run
from cli.local.stack import PROJECT_ROOT, running_environment
from include.config import Settings, load_settings
from include.errors import PermanentError

URL_SUFFIX = "database_url"


def settings_here() -> Settings:
    """Return the environment's settings; if they name no database, those of a running stack.

    Without CANDELABRA_HOME, a stack of this checkout is found from any folder. After ``--demo`` or
    ``--up`` that stack's settings are returned, whatever database the environment names.

    Raises:
        PermanentError: a setting is wrong, two stacks run, or the chosen one does not.
    """
    settings = load_settings()
    run = chosen_run()
    if run is None and (settings.database_url or settings.role_urls()):
        return settings
    homes = [settings.candelabra_home]
    if "candelabra_home" not in settings.model_fields_set:
        homes.append(PROJECT_ROOT / settings.candelabra_home)
    for home in homes:
        environment = running_environment(home, run)
        if environment is not None:
            # Empty: the logins of another database do not belong to this stack.
            fields = {name: "" for name in settings.model_fields_set if name.endswith(URL_SUFFIX)}
            fields |= {name.lower(): value for name, value in environment.items()}
            fields.setdefault("candelabra_home", str(home))
            return load_settings(
                **{name: fields[name] for name in Settings.model_fields if name in fields}
            )
    if run is not None:
        raise PermanentError(
            f"--{run}: `{run}` does not run in {homes[-1].absolute()}; start it with `make {run}`"
        )
    return settings  # a command that needs a database reports the missing setting
