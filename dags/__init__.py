"""Schedules, retries, pools and edges. The work is in ``include.jobs``."""
