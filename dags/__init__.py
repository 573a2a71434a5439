"""One file for each DAG: schedule, retries, pools, task order. ``include.jobs`` does the work."""
