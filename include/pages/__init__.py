"""What the pages show, without Airflow and without HTML: rows of the warehouse's views, made ready for a template."""
