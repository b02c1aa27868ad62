"""Where the project lies: the directory of dags/, plugins/ and include/."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
