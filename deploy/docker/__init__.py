"""What runs inside the images: entry point of Airflow's containers, and health checks."""
