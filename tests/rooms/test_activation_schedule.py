"""Which PROCESSING file is asked about when."""

import math

from pipeline.activation.schedule import SCOUTS, SILENCE_SECONDS, Schedule


def simulate(
    schedule: Schedule, processing_seconds: dict[str, float], mime_type: str = "video/mp4"
) -> tuple[int, dict[str, float]]:
    """Ask as the schedule says, in virtual time from 0; returns calls made and when each file was found ACTIVE."""
    now, calls, found = 0.0, 0, {}
    for name in processing_seconds:
        schedule.add(name, mime_type=mime_type, now=now)
    while len(schedule):
        now = max(now, schedule.next_due_at(now))
        for name in schedule.due(now):
            calls += 1
            if now >= processing_seconds[name]:
                schedule.active(name, now)
                found[name] = now
            else:
                schedule.still_processing(name, now)
    return calls, found


def test_forty_videos_cost_few_calls_and_are_found_soon() -> None:
    """Forty files of five seconds cost fewer than two calls each and are found at most a third late."""
    calls, found = simulate(Schedule(), {f"files/{n}": 5.0 for n in range(40)})
    assert calls < 80
    assert max(found.values()) <= 5.0 * 1.33


def test_what_was_learnt_makes_the_next_ones_cheap() -> None:
    """Once a type's time is known, a file of it costs about one call."""
    schedule = Schedule()
    simulate(schedule, {"files/first": 5.0})
    calls, _ = simulate(schedule, {f"files/{n}": 5.0 for n in range(20)})
    assert calls <= 40


def test_long_videos_in_front_hold_up_no_clip_behind_them() -> None:
    """Two that take ten minutes are asked about first; the others take five seconds."""
    long = {f"files/long{n}": 600.0 for n in range(2)}
    calls, found = simulate(Schedule(), long | {f"files/{n}": 5.0 for n in range(38)})
    assert max(at for name, at in found.items() if name not in long) < 20
    assert max(found.values()) <= 615
    assert calls < 250


def test_a_clip_after_a_long_video_is_not_expected_to_take_as_long() -> None:
    schedule = Schedule()
    simulate(schedule, {"files/long": 600.0})
    _, found = simulate(schedule, {"files/clip": 5.0})
    assert found["files/clip"] <= 30


def test_many_long_videos_are_asked_about_without_haste() -> None:
    """512 that take ten minutes: at most every fifteen seconds each, most far more rarely."""
    calls, found = simulate(Schedule(), {f"files/{n}": 600.0 for n in range(512)})
    assert max(found.values()) <= 615
    assert calls / 600 < 8


def test_a_stuck_scout_does_not_hold_up_files_of_another_type() -> None:
    """Scouts are chosen by type: videos that never end leave images alone."""
    schedule = Schedule()
    for n in range(3):
        schedule.add(f"files/v{n}", mime_type="video/mp4", now=0.0)
    schedule.add("files/i", mime_type="image/png", now=0.0)
    assert schedule.due(0.5) == ["files/v0", "files/v1", "files/i"]


def test_when_a_scout_gives_up_another_takes_its_place() -> None:
    """A dropped scout's place goes to the next file of its type."""
    schedule = Schedule()
    for n in range(3):
        schedule.add(f"files/v{n}", mime_type="video/mp4", now=0.0)
    schedule.drop("files/v0")
    assert "files/v2" in schedule.due(1.0)


def test_intervals_grow_with_age_and_are_bounded() -> None:
    """An old file is asked about every fifteen seconds, not ever more rarely."""
    schedule = Schedule()
    schedule.add("files/v", mime_type="video/mp4", now=0.0)
    schedule.still_processing("files/v", 800.0)
    assert schedule.next_due_at(800.0) == 815.0


def test_a_file_is_not_asked_about_twice_at_once() -> None:
    """Neither because time goes by, nor because the time of its type becomes known."""
    schedule = Schedule()
    for n in range(2):
        schedule.add(f"files/{n}", mime_type="video/mp4", now=0.0)
    assert schedule.due(0.5) == ["files/0", "files/1"]
    for n in range(2):
        schedule.asking(f"files/{n}", 0.5)
    schedule.active("files/0", 0.6)
    assert not schedule.due(600.0)
    assert math.isinf(schedule.next_due_at(600.0))
    schedule.still_processing("files/1", 600.0)
    assert schedule.due(700.0) == ["files/1"]


def test_a_silent_scout_is_one_no_more() -> None:
    """Another of its type is asked about then."""
    schedule = Schedule()
    for n in range(SCOUTS + 1):
        schedule.add(f"files/{n}", mime_type="video/mp4", now=0.0)
    for name in schedule.due(1.0):
        schedule.asking(name, 1.0)
    assert not schedule.due(1.0 + SILENCE_SECONDS)
    assert schedule.due(1.5 + SILENCE_SECONDS) == [f"files/{SCOUTS}"]
