"""Airflow imports this module by its name at every start. In a scheduler, and nowhere else, it preloads libraries.

This is for an Airflow of your own. The embedded platform's scheduler preloads the libraries itself.
"""

import sys

from include.airflow.patches import preload

if sys.argv[1:2] == ["scheduler"]:
    preload.libraries()
