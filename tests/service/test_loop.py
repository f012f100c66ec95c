"""Pauses between attempts."""

from service.loop import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Backoff


def test_pauses_double_are_never_in_step_and_begin_again_after_an_answer() -> None:
    backoff = Backoff()
    for _ in range(2):
        for longest in (FIRST_RETRY_SECONDS, 1.0, 2.0, LAST_RETRY_SECONDS, LAST_RETRY_SECONDS):
            assert longest / 2 <= backoff.next_seconds() <= longest
        backoff.reset()
    assert len({Backoff().next_seconds() for _ in range(10)}) > 1
