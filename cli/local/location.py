"""Settings of a command typed on the machine where `demo` or `up` runs."""

from __future__ import annotations

from cli.local.stack import running_environment
from include.config import Settings, load_settings


def settings_here() -> Settings:
    """Return the environment's settings; without a database in them, those of a running stack.

    Raises:
        PermanentError: a setting is wrong, or two stacks run.
    """
    settings = load_settings()
    if settings.database_url or settings.role_urls():
        return settings
    environment = running_environment(settings.candelabra_home)
    if environment is None:
        return settings  # a command that needs a database reports the missing setting
    fields = {name.lower(): value for name, value in environment.items()}
    return load_settings(**{name: fields[name] for name in Settings.model_fields if name in fields})
