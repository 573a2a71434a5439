"""What the DAG files share; the only other folder that imports Airflow."""
