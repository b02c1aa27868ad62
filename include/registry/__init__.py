"""The registry: the champion of each dataset, ready to predict, and the history of its champions.

from include.registry import champion
champion("seattle_weather").predict(frame)
"""

from include.registry.model import Model, champion

__all__ = ["Model", "champion"]
