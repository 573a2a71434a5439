"""Settings of a command typed on the machine where `demo` or `up` runs."""

from __future__ import annotations

from cli.local.stack import PROJECT_ROOT, running_environment
from include.config import Settings, load_settings


def settings_here() -> Settings:
    """Return the environment's settings; if they name no database, those of a running stack.

    Without CANDELABRA_HOME, a stack of this checkout is found from any folder.

    Raises:
        PermanentError: a setting is wrong, or two stacks run.
    """
    settings = load_settings()
    if settings.database_url or settings.role_urls():
        return settings
    homes = [settings.candelabra_home]
    if "candelabra_home" not in settings.model_fields_set:
        homes.append(PROJECT_ROOT / settings.candelabra_home)
    for home in homes:
        environment = running_environment(home)
        if environment is not None:
            fields = {name.lower(): value for name, value in environment.items()}
            fields.setdefault("candelabra_home", str(home))
            return load_settings(
                **{name: fields[name] for name in Settings.model_fields if name in fields}
            )
    return settings  # a command that needs a database reports the missing setting
