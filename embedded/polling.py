"""One way to wait: check a condition, pause, check it again."""

from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout: float, pause: float) -> None:
    """Wait until a condition holds.

    Args:
        condition: Called until it returns something true. What it raises ends the waiting.
        timeout: Seconds.
        pause: Seconds between two calls.

    Raises:
        TimeoutError: The condition still does not hold after ``timeout`` seconds.
    """
    # Imported here, because most commands do not wait.
    from tenacity import RetryError, Retrying, retry_if_not_result, stop_after_delay, wait_fixed

    check = Retrying(retry=retry_if_not_result(bool), stop=stop_after_delay(timeout), wait=wait_fixed(pause))
    try:
        check(condition)
    except RetryError as error:
        raise TimeoutError(f"not within {timeout} s") from error
