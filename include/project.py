"""The root directory of the project, which holds dags/, plugins/ and include/."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
