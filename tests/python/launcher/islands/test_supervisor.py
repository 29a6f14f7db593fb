"""The supervisor's decisions, one story a test. No process, no clock."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll_launcher.islands import supervisor as sv
from atoll_launcher.islands.supervisor import Supervisor
from atoll_launcher.islands.supervisor_events import (
    Begin,
    ChildExited,
    Event,
    Finish,
    GaveUp,
    JobStopped,
    Joined,
    Kill,
    LeaveRequested,
    NoticeStop,
    OthersPresent,
    PutOut,
    Restarting,
    Start,
    StopRequested,
    Terminate,
    Tick,
    Waiting,
)

NAMES = ["a", "b", "c"]


def begun(*, max_restarts: int = 3, floor: int = 1, joined: bool = True) -> Supervisor:
    machine = Supervisor(NAMES, max_restarts=max_restarts, floor=floor)
    assert machine.handle(Begin(), 0.0) == [Start(island=name, attempt=0) for name in NAMES]
    if joined:
        for name in NAMES:
            machine.handle(Joined(island=name), 1.0)
    return machine


def killed(island: str) -> ChildExited:
    return ChildExited(island=island, code=0, signal=signal.SIGKILL)


def test_all_finished_is_success() -> None:
    machine = begun()
    assert machine.handle(ChildExited(island="a", code=0), 10.0) == []
    assert machine.handle(ChildExited(island="b", code=0), 10.0) == []
    assert machine.handle(ChildExited(island="c", code=0), 11.0) == [
        Finish(code=0, message="3 of 3 islands finished")
    ]
    assert machine.handle(Tick(), 12.0) == []


def test_a_killed_island_starts_again_after_the_back_off() -> None:
    machine = begun()
    assert machine.handle(killed("b"), 10.0) == [Restarting(island="b", attempt=1, wait_s=1.0)]
    assert machine.deadline_s() == 11.0
    assert machine.handle(Tick(), 10.9) == []
    assert machine.handle(Tick(), 11.0) == [Start(island="b", attempt=1)]


def test_back_off_doubles_up_to_its_maximum_and_health_resets_it() -> None:
    machine = begun(max_restarts=100)
    now, waits = 10.0, []
    for _ in range(7):
        (action,) = machine.handle(killed("b"), now)
        assert isinstance(action, Restarting)
        waits.append(action.wait_s)
        now += action.wait_s
        machine.handle(Tick(), now)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    (action,) = machine.handle(killed("b"), now + sv.HEALTHY_AFTER_S)
    assert action == Restarting(island="b", attempt=8, wait_s=1.0)


def crash_until_given_up(machine: Supervisor, island: str, now: float) -> tuple[int, float]:
    restarts = 0
    while True:
        first = machine.handle(killed(island), now)[0]
        if isinstance(first, GaveUp):
            return restarts, now
        assert isinstance(first, Restarting)
        restarts += 1
        now += first.wait_s
        machine.handle(Tick(), now)


def test_restarts_are_bounded_within_the_window_and_the_others_go_on() -> None:
    machine = begun(max_restarts=3)
    assert crash_until_given_up(machine, "b", 10.0)[0] == 3
    machine.handle(ChildExited(island="a", code=0), 60.0)
    assert machine.handle(ChildExited(island="c", code=0), 60.0) == [
        Finish(code=0, message="2 of 3 islands finished")
    ]


def test_old_restarts_are_forgotten() -> None:
    machine = begun(max_restarts=1)
    now = 10.0
    for attempt in range(1, 5):
        assert machine.handle(killed("b"), now) == [
            Restarting(island="b", attempt=attempt, wait_s=1.0)
        ]
        machine.handle(Tick(), now + 1)
        now += sv.RESTART_WINDOW_S


def test_without_restarts_a_failure_is_final_and_remembered_in_the_exit_code() -> None:
    machine = begun(max_restarts=0)
    assert machine.handle(ChildExited(island="b", code=7), 10.0) == [
        GaveUp(island="b", reason="restarts are off")
    ]
    machine.handle(ChildExited(island="a", code=0), 60.0)
    assert machine.handle(ChildExited(island="c", code=0), 60.0) == [
        Finish(code=5, message="b failed; 2 of 3 islands finished", shown="b")
    ]


def test_below_the_minimum_everything_is_stopped() -> None:
    machine = begun(max_restarts=0, floor=3)
    assert machine.handle(killed("b"), 10.0) == [
        GaveUp(island="b", reason="restarts are off"),
        NoticeStop(message="2 islands are left, and the job needs 3"),
        Terminate(island="a"),
        Terminate(island="c"),
    ]
    machine.handle(ChildExited(island="a", code=1), 10.1)
    assert machine.handle(ChildExited(island="c", code=0, signal=15), 10.1) == [
        Finish(code=4, message="2 islands are left, and the job needs 3", shown="b")
    ]


def test_islands_of_other_launchers_count_for_the_minimum() -> None:
    machine = begun(max_restarts=0, floor=3)
    machine.handle(OthersPresent(count=1), 5.0)
    assert machine.handle(killed("b"), 10.0) == [GaveUp(island="b", reason="restarts are off")]
    assert machine.handle(OthersPresent(count=0), 11.0)[0] == NoticeStop(
        message="2 islands are left, and the job needs 3"
    )


def test_a_script_that_cannot_start_is_not_tried_again() -> None:
    machine = begun(joined=False)
    failure = "ModuleNotFoundError: No module named 'x'"
    for island in "ab":
        (action,) = machine.handle(ChildExited(island=island, code=1, error=failure), 0.5)
        assert isinstance(action, Restarting)
    assert machine.handle(ChildExited(island="c", code=1, error=failure), 0.6) == [
        NoticeStop(
            message="all islands failed in the same way while they started; not tried again"
        ),
        Finish(
            code=5,
            message="all islands failed in the same way while they started; not tried again",
            shown="c",
        ),
    ]


def test_a_slow_import_before_the_error_changes_nothing_but_a_late_exit_code_does() -> None:
    machine = begun(joined=False)
    for island in "ab":
        machine.handle(ChildExited(island=island, code=1, error="E: x"), 20.0)
    assert machine.handle(ChildExited(island="c", code=1, error="E: x"), 20.0)[-1] == Finish(
        code=5,
        message="all islands failed in the same way while they started; not tried again",
        shown="c",
    )
    machine = begun(joined=False)
    for island in NAMES:
        (action,) = machine.handle(ChildExited(island=island, code=1), 20.0)
        assert isinstance(action, Restarting)


def test_different_failures_are_tried_again() -> None:
    machine = begun(joined=False)
    for island in NAMES:
        (action,) = machine.handle(ChildExited(island=island, code=1, error=island), 0.5)
        assert isinstance(action, Restarting)


def test_failing_alike_after_having_joined_is_tried_again() -> None:
    machine = begun()
    for island in NAMES:
        (action,) = machine.handle(ChildExited(island=island, code=1, error="E: x"), 1.5)
        assert isinstance(action, Restarting)


def test_stop_asks_then_kills() -> None:
    machine = begun()
    machine.handle(killed("b"), 9.9)
    assert machine.handle(StopRequested(exit_code=130), 10.0) == [
        NoticeStop(message="stopped by the user"),
        Terminate(island="a"),
        Terminate(island="c"),
    ]
    machine.handle(ChildExited(island="a", code=0, signal=15), 10.1)
    assert machine.deadline_s() == 10.0 + sv.KILL_AFTER_S
    assert machine.handle(Tick(), 12.0) == [Kill(island="c")]
    assert machine.handle(killed("c"), 12.1) == [Finish(code=130, message="stopped by the user")]


def test_the_second_stop_kills_at_once() -> None:
    machine = begun()
    machine.handle(StopRequested(exit_code=130), 10.0)
    assert machine.handle(StopRequested(exit_code=130), 10.1) == [
        Kill(island=name) for name in NAMES
    ]


def test_after_the_job_is_complete_nobody_starts_again() -> None:
    machine = begun()
    machine.handle(killed("b"), 10.0)
    assert machine.handle(ChildExited(island="a", code=0), 10.5) == [
        GaveUp(island="b", reason="the job is complete")
    ]
    assert machine.handle(killed("c"), 10.6) == [
        GaveUp(island="c", reason="the job is complete"),
        Finish(code=0, message="1 of 3 islands finished"),
    ]


def test_an_island_that_comes_too_late_to_join_is_ended() -> None:
    machine = begun()
    machine.handle(killed("b"), 10.0)
    machine.handle(Tick(), 11.0)
    assert machine.handle(ChildExited(island="a", code=0), 12.0) == []  # c may still take b in
    assert machine.handle(ChildExited(island="c", code=0), 13.0) == [
        GaveUp(island="b", reason="the job is complete"),
        Terminate(island="b"),
    ]
    assert machine.handle(Tick(), 13.0 + sv.KILL_AFTER_S) == [Kill(island="b")]
    assert machine.handle(killed("b"), 15.1) == [Finish(code=0, message="2 of 3 islands finished")]


def test_an_island_may_come_late_while_other_launchers_islands_train() -> None:
    machine = begun()
    machine.handle(OthersPresent(count=1), 5.0)
    machine.handle(killed("b"), 10.0)
    machine.handle(Tick(), 11.0)
    machine.handle(ChildExited(island="a", code=0), 12.0)
    assert machine.handle(ChildExited(island="c", code=0), 13.0) == []
    assert machine.handle(OthersPresent(count=0), 14.0) == [
        GaveUp(island="b", reason="the job is complete"),
        Terminate(island="b"),
    ]
    assert machine.handle(ChildExited(island="b", code=1), 14.1) == [
        Finish(code=0, message="2 of 3 islands finished")
    ]


def test_a_job_stopped_elsewhere_ends_without_restarts() -> None:
    machine = begun()
    assert machine.handle(JobStopped(), 10.0) == []
    machine.handle(ChildExited(island="a", code=0), 10.5)
    machine.handle(ChildExited(island="b", code=0), 10.5)
    assert machine.handle(Tick(), 20.0) == [Kill(island="c")]
    assert machine.handle(killed("c"), 20.1) == [
        Finish(code=5, message="the job was stopped; 2 of 3 islands had finished")
    ]


def test_the_host_waits_for_the_islands_of_others_a_while() -> None:
    machine = begun()
    machine.handle(OthersPresent(count=1), 5.0)
    for name in "ab":
        machine.handle(ChildExited(island=name, code=0), 10.0)
    (action,) = machine.handle(ChildExited(island="c", code=0), 10.0)
    assert isinstance(action, Waiting)
    assert machine.deadline_s() == 10.0 + sv.LINGER_S
    assert machine.handle(Tick(), 12.0) == []
    finish = Finish(code=0, message="3 of 3 islands finished")
    assert machine.handle(OthersPresent(count=0), 13.0) == [finish]


def test_the_host_waits_for_a_job_that_only_others_still_train() -> None:
    machine = begun(max_restarts=0)
    machine.handle(OthersPresent(count=1), 5.0)
    for name in NAMES:
        last = machine.handle(killed(name), 10.0)[-1]
    assert isinstance(last, Waiting)
    assert machine.deadline_s() is None
    assert machine.handle(StopRequested(exit_code=143), 99.0)[-1] == Finish(
        code=143, message="stopped by the user"
    )


def test_who_does_not_host_does_not_wait() -> None:
    machine = Supervisor(["a"], max_restarts=0, floor=0, hosts=False)
    machine.handle(Begin(), 0.0)
    machine.handle(OthersPresent(count=3), 5.0)
    assert machine.handle(ChildExited(island="a", code=0), 10.0) == [
        Finish(code=0, message="1 of 1 islands finished")
    ]


steps = st.one_of(
    st.builds(ChildExited, island=st.sampled_from(NAMES), code=st.sampled_from([0, 1])),
    st.builds(killed, st.sampled_from(NAMES)),
    st.builds(Joined, island=st.sampled_from(NAMES)),
    st.builds(OthersPresent, count=st.integers(0, 2)),
    st.just(StopRequested(exit_code=130)),
    st.just(JobStopped()),
    st.just(Tick()),
)


@given(st.lists(steps, max_size=40), st.integers(0, 3), st.integers(1, 3))
def test_whatever_happens_it_ends_with_no_process_left(
    events: list[Event], max_restarts: int, floor: int
) -> None:
    """Only what runs may exit; after a stop with exits for all that runs, Finish comes once."""
    machine = Supervisor(NAMES, max_restarts=max_restarts, floor=floor)
    now, running, finishes = 0.0, set[str](), 0

    def feed(event: Event) -> None:
        nonlocal finishes
        if isinstance(event, ChildExited):
            running.discard(event.island)
        for action in machine.handle(event, now):
            match action:
                case Start():
                    assert action.island not in running
                    running.add(action.island)
                case Terminate() | Kill():
                    assert action.island in running
                case Finish():
                    assert not running
                    finishes += 1
                case _:
                    pass

    feed(Begin())
    for event in events:
        now += 1.0
        if not isinstance(event, ChildExited) or event.island in running:
            feed(event)
    feed(StopRequested(exit_code=130))
    for name in sorted(running):
        feed(killed(name))
    assert finishes == 1
    assert machine.deadline_s() is None


# --- leaving --------------------------------------------------------------------------------------


def test_an_island_that_was_drained_is_not_missed() -> None:
    machine = begun()
    assert machine.handle(ChildExited(island="a", code=0, left="it was drained"), 10.0) == [
        GaveUp(island="a", reason="it was drained")
    ]
    # The job goes on: who crashes now is started again.
    assert machine.handle(killed("b"), 11.0) == [Restarting(island="b", attempt=1, wait_s=1.0)]
    machine.handle(Tick(), 12.0)
    machine.handle(Joined(island="b"), 13.0)
    machine.handle(ChildExited(island="b", code=0), 20.0)
    assert machine.handle(ChildExited(island="c", code=0), 20.0) == [
        Finish(code=0, message="2 of 3 islands finished, 1 left when asked to")
    ]


def test_an_island_that_was_put_out_is_ended_for_good() -> None:
    machine = begun()
    assert machine.handle(PutOut(island="a", why="it was killed"), 10.0) == [Kill(island="a")]
    gone = GaveUp(island="a", reason="it was killed")
    assert machine.handle(killed("a"), 10.1) == [gone]
    # Its process may be quicker to end than the news is to come.
    machine.handle(ChildExited(island="b", code=1), 11.0)
    assert machine.handle(PutOut(island="b", why="it was killed"), 11.1) == [
        GaveUp(island="b", reason="it was killed")
    ]
    assert machine.deadline_s() is None


def test_leaving_politely_ends_well_whatever_the_scripts_return() -> None:
    machine = begun()
    actions = machine.handle(LeaveRequested(within_s=30.0), 10.0)
    assert [a.island for a in actions if isinstance(a, Terminate)] == NAMES
    assert not [a for a in actions if isinstance(a, NoticeStop)], "others are to go on"
    assert machine.deadline_s() == 40.0
    machine.handle(ChildExited(island="a", code=0), 11.0)
    machine.handle(ChildExited(island="b", code=1), 12.0)
    assert machine.handle(ChildExited(island="c", code=0, signal=signal.SIGTERM), 12.0) == [
        Finish(code=0, message="left politely")
    ]


def test_leaving_has_an_end_and_a_second_request_does_not_wait_for_it() -> None:
    machine = begun()
    machine.handle(LeaveRequested(within_s=30.0), 10.0)
    assert machine.handle(Tick(), 40.0) == [Kill(island=name) for name in NAMES]
    for name in NAMES[:2]:
        machine.handle(killed(name), 40.0)
    (end,) = machine.handle(killed("c"), 40.0)
    assert isinstance(end, Finish)
    assert end.code == 143

    machine = begun()
    machine.handle(LeaveRequested(within_s=30.0), 10.0)
    assert machine.handle(StopRequested(exit_code=130), 12.0) == [Kill(island=n) for n in NAMES]
    for name in NAMES[:2]:
        machine.handle(killed(name), 12.0)
    assert machine.handle(killed("c"), 12.0) == [Finish(code=130, message="stopped while leaving")]


REVOKED = PutOut(island="b", why="it was revoked", is_refused=True)


@pytest.mark.parametrize("events", [(), (JobStopped(),)])  # the others may be quicker to end
def test_who_may_not_come_back_is_not_started_again(events: tuple[JobStopped, ...]) -> None:
    machine = begun(floor=0)
    assert [machine.handle(event, 10.0) for event in events] == [[] for _ in events]
    said = ChildExited(island="b", code=3, error="revoked", refused="revoked: ask for a token")
    assert machine.handle(said, 10.0) == [GaveUp(island="b", reason="revoked: ask for a token")]
    machine.handle(ChildExited(island="a", code=0), 60.0)
    assert machine.handle(ChildExited(island="c", code=0), 60.0) == [
        Finish(code=3, message="b may not come back: revoked: ask for a token")
    ]


def test_who_is_refused_has_a_moment_to_say_so_itself() -> None:
    machine = begun(floor=0)
    assert machine.handle(REVOKED, 10.0) == []
    assert machine.deadline_s() == 10.0 + sv.KILL_AFTER_S
    assert machine.handle(Tick(), 11.0) == []
    assert machine.handle(Tick(), 10.0 + sv.KILL_AFTER_S) == [Kill(island="b")]
    assert machine.deadline_s() is None
    assert machine.handle(killed("b"), 13.0) == [GaveUp(island="b", reason="it was revoked")]


def test_who_was_quicker_to_end_than_the_news_of_its_refusal_is_not_started_again() -> None:
    machine = begun(floor=0)
    assert isinstance(machine.handle(ChildExited(island="b", code=1), 10.0)[0], Restarting)
    assert machine.handle(REVOKED, 10.5) == [GaveUp(island="b", reason="it was revoked")]
    assert machine.deadline_s() is None


def test_a_refused_island_counts_among_those_that_are_missing() -> None:
    machine = begun(floor=3)
    machine.handle(REVOKED, 10.0)
    actions = machine.handle(ChildExited(island="b", code=3, refused="revoked"), 11.0)
    assert NoticeStop(message="2 islands are left, and the job needs 3") in actions
