"""metrics: what Prometheus reads."""

import os
import sys

import click

from embedded import environment
from embedded.platform import Platform


@click.command()
def metrics() -> None:
    """Print the metrics in the OpenMetrics format, as Prometheus reads them from /millrace/metrics.

    Each value is read now. A value that cannot be known now is left out, and millrace_up is 0 for the server that does
    not answer.
    """
    from include.monitoring import metrics

    platform = Platform()
    os.environ.update(platform.environment())
    sys.stdout.buffer.write(metrics.render(environment.metadata_url(platform.home)))
