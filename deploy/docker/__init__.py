"""Programs inside the images: the entry point of Airflow's containers and health checks."""
