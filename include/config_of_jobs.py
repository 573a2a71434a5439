"""Settings of the jobs: folders, retention, thresholds of the quality rules.

Part of ``include.config``, which alone reads the environment.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class JobSettings(BaseSettings):
    """Folders, retention and limits; the base of ``include.config.Settings``."""

    # --- files and local services
    candelabra_home: Path = Field(
        default=Path(".candelabra"), description="State of embedded services, inbox, quarantine."
    )
    inbox_folder: Path | None = Field(
        default=None, description="Files dropped here are loaded; else CANDELABRA_HOME/inbox."
    )

    # --- storage
    raw_retention_days: int | None = Field(
        default=None,
        ge=2,
        le=36_500,
        description="Days that captured rows stay in their tables; then they go to the archive.",
    )
    archive_folder: Path | None = Field(
        default=None, description="Parquet files of archived days; else CANDELABRA_HOME/archive."
    )
    ledger_retention_days: int = Field(
        default=90, ge=7, le=36_500, description="Days for which results of passed checks are kept."
    )

    # --- quality
    quality_stale_after_minutes: int = Field(
        default=10,
        ge=2,
        le=10_080,
        description="Age of a streamed symbol's newest minute that is an error.",
    )
    quality_unverified_after_minutes: int = Field(
        default=60,
        ge=5,
        le=1_440,
        description="How long a streamed minute may be unconfirmed, and a gap be open.",
    )
    quality_jump_multiple: Decimal = Field(
        default=Decimal(20),
        gt=1,
        le=1_000_000,
        description="Usual ranges by which a close may differ from the one before.",
    )
    quality_docs_folder: Path | None = Field(
        default=None, description="Pages with quality results; else CANDELABRA_HOME/quality."
    )

    @field_validator("candelabra_home", "archive_folder", "inbox_folder", "quality_docs_folder")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is not None and value.exists() and not value.is_dir():
            raise ValueError("should be a folder, which may be absent; this is a file")
        return value

    @property
    def archive(self) -> Path:
        """The folder of archived raw capture."""
        return self.archive_folder or self.candelabra_home / "archive"

    @property
    def inbox(self) -> Path:
        """The folder whose files are loaded."""
        return self.inbox_folder or self.candelabra_home / "inbox"

    @property
    def quality_docs(self) -> Path:
        """The folder of the pages of what the checks found."""
        return self.quality_docs_folder or self.candelabra_home / "quality"
