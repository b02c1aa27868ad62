"""The promises of the embedded platform."""

from include.platform.platform import Platform


def test_the_services_are_healthy(services: Platform) -> None:
    healthy = {health.name for health in services.status() if health.healthy}
    assert healthy == {"postgres", "kafka"}
