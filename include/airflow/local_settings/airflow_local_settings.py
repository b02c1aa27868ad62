"""Airflow imports this by its name at every start: in a scheduler, and in no other component, preload libraries.

The embedded platform's scheduler does so by itself; this is for an Airflow of your own and for docker-compose.yml.
"""

import sys

from include.airflow.patches import preload

if sys.argv[1:2] == ["scheduler"]:
    preload.libraries()
