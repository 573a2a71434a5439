"""Code shared by the DAG files; besides them the only folder that imports Airflow."""
