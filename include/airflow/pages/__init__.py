"""The pages of Millrace in Airflow's UI: a FastAPI app that ``plugins/millrace_pages.py`` mounts in the api-server."""
