"""How slow a body and a reader may be. What comes of it on a connection: `test_server_deadlines.py`."""

from __future__ import annotations

from convene.http.server_clocks import BodyClock, ReaderClock
from convene.http.server_settings import ServerSettings

SETTINGS = ServerSettings(
    body_bytes_per_s=10,
    body_window_s=5.0,
    body_total_s=60.0,
    write_stall_s=30.0,
    write_bytes_per_s=2,
    tick_s=1.0,
)


def test_a_body_must_keep_its_rate_in_each_window_and_not_on_the_whole() -> None:
    clock = BodyClock(SETTINGS, 0.0, 0)
    assert clock.why_late(5.0, 0) == ""
    assert clock.why_late(5.1, 1000) == ""
    assert clock.why_late(10.2, 1049) == "The request body came slower than 10 bytes per second."
    assert BodyClock(SETTINGS, 0.0, 0).why_late(5.1, 50) == ""


def test_a_body_has_an_end_however_fast_it_comes() -> None:
    clock = BodyClock(SETTINGS, 100.0, 0)
    assert clock.why_late(160.0, 10**6) == ""
    assert clock.why_late(160.1, 10**7) == "The request body took longer than 60 s."


def test_a_tick_in_which_nobody_reads_is_left_out() -> None:
    clock = BodyClock(SETTINGS, 0.0, 7)
    for now in range(1, 11):
        clock.stand_still(float(now), 7)
    assert clock.why_late(15.0, 7) == ""
    assert clock.why_late(15.1, 57) == ""
    assert clock.why_late(70.0, 10**6) == ""
    assert clock.why_late(70.1, 10**7) != ""


def test_a_reader_that_takes_less_than_the_least_is_dropped_just_before_its_time_is_up() -> None:
    clock = ReaderClock(SETTINGS, 0.0, 0)
    assert not clock.is_stalled(27.9, 59)
    assert clock.is_stalled(28.0, 59)


def test_a_reader_that_has_taken_enough_begins_anew() -> None:
    clock = ReaderClock(SETTINGS, 0.0, 0)
    assert not clock.is_stalled(28.0, 60)
    assert not clock.is_stalled(55.9, 119)
    assert clock.is_stalled(56.0, 119)


def test_a_reader_that_takes_enough_is_kept_even_where_ticks_are_longer_than_its_patience() -> None:
    clock = ReaderClock(ServerSettings(write_stall_s=0.5, write_bytes_per_s=2, tick_s=1.0), 0.0, 0)
    assert not clock.is_stalled(1.0, 1)
    assert clock.is_stalled(2.0, 1)
