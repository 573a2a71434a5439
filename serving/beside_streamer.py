"""Servers of a streamer's process; the command line hands them to the streamer."""

from __future__ import annotations

from serving.observability import observed_by_http
from serving.serve import serve_hub
from streamer.app import Serving

BESIDE_STREAMER = Serving(probes=observed_by_http, readers=serve_hub)
