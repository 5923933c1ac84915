"""The mailbox of a worker: nothing is lost between looking and sleeping,
and looking stops where it does not pay.
"""

import os
import select
import signal
import threading
import time
from dataclasses import replace

import pytest

from tests.pool.test_pool import CONFIG, actions, starts
from wamrl.pool import order_queue as workers_mailbox
from wamrl.pool.order_queue import SPIN_S, Mailbox, Patience, make_files


@pytest.fixture(params=[True, False], ids=["looks at the count", "reads the bell"])
def box(request, monkeypatch):
    monkeypatch.setattr(workers_mailbox, "_IN_ORDER", request.param)
    memory, *bells = make_files()
    yield Mailbox(3, 4, memory, *bells)
    for bell in bells:
        os.close(bell)


def test_orders_arrive_as_written_and_finished_ones_are_counted(box):
    box.order(1, [(3, None), (5, 17)])
    box.order(2, [(4, 0), (6, None)])
    assert box.asked.reached(2) and not box.asked.reached(3)
    assert box.read(1) == [(3, None), (5, 17)] and box.read(2) == [(4, 0), (6, None)]
    assert not box.done.reached(1)
    box.finish(0.25)
    assert box.done.reached(1) and not box.done.reached(2) and box.busy_s == 0.25
    box.finish(0.5)
    assert box.done.reached(2) and box.busy_s == 0.75


def test_no_wake_up_is_lost(box):
    """A sleeper that is told 2,000 times,
    sometimes before it sleeps and sometimes after, awakes each time.
    """
    told, poll = [], select.poll()
    poll.register(box.asked.bell, select.POLLIN)

    def sleep(number: int) -> None:
        while not box.asked.reached(number):
            assert poll.poll(5000), "nobody woke the sleeper"
            box.asked.listen()

    def sleeper() -> None:
        for number in range(1, 2001):
            sleep(number)
            told.append(number)
            box.finish(0.0)

    thread = threading.Thread(target=sleeper)
    thread.start()
    for number in range(1, 2001):
        box.order(number, [(3, None)])
        # or go on: two and three orders at a time
        while number % 3 and not box.done.reached(number):
            time.sleep(0)
    thread.join(20)
    assert not thread.is_alive() and told == list(range(1, 2001)) and box.done.reached(2000)


class Clock:
    """Time that passes only while somebody waits, 1 us per look;
    in place of the modules time and os.
    """

    def __init__(self, monkeypatch) -> None:
        self.now, self.patience = 0.0, Patience()
        monkeypatch.setattr(workers_mailbox, "time", self)
        monkeypatch.setattr(workers_mailbox, "os", self)

    def perf_counter(self) -> float:
        return self.now

    def sched_yield(self) -> None:
        self.now += 1e-6

    def wait(self, seconds: float) -> bool:
        """For something that takes so long; was it looked for?"""
        end, looks = self.now + seconds, []

        def there() -> bool:
            looks.append(self.now)
            return self.now >= end

        def sleep() -> None:
            self.now = end

        begin = self.now
        self.patience.wait(there, sleep)
        assert self.now >= end and (not looks or looks[-1] < begin + SPIN_S + 2e-6), (
            "looked for too long"
        )
        return bool(looks)


def test_nobody_looks_where_waits_are_long(monkeypatch):
    clock = Clock(monkeypatch)
    assert [clock.wait(5 * SPIN_S) for _ in range(20)] == [False] * 20
    assert [clock.wait(SPIN_S / 2) for _ in range(20)] == [False] + [True] * 19
    assert [clock.wait(5 * SPIN_S) for _ in range(20)] == [True] + [False] * 19


def test_looks_in_vain_become_rare_and_come_back(monkeypatch):
    """Every wait that is looked through turns out long, as it may where others need the core."""
    clock, vain = Clock(monkeypatch), 0
    for _ in range(4000):
        vain += clock.wait(5 * SPIN_S if clock.patience._rest == 0 else SPIN_S / 2)
    assert vain <= 13
    assert sum(clock.wait(SPIN_S / 2) for _ in range(4000)) >= 2900


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_worker_that_is_lost_while_we_look_is_noticed(fault):
    bad = starts(5)[3].seed
    env = replace(CONFIG.env, horizon=1000, fault=fault, bad_seeds=(bad,))
    with replace(CONFIG, env=env, timeout_s=1.5).build() as pool:
        pool.reset([*starts(3), None, starts(5)[4]])
        for step in range(60):
            pool.step(actions(step), pool.live)
        for process in pool._team._processes:
            process._patience._rest = 0  # the next wait is looked through, whatever the machine did
        pool.reset_slots([3], [starts(5)[3]])
        for process in pool._team._processes:
            process._patience._rest = 0
        begin = time.monotonic()
        outcome = pool.step(actions(0), pool.live)
        assert (
            outcome.lost.tolist() == [False, False, True, True, True]
            and time.monotonic() - begin < 20
        )
        pool.reset_slots([2, 3, 4], starts(3, first=20))
        assert pool.step(actions(1), pool.live).executed.tolist() == [5] * 5


def test_a_worker_that_was_asleep_or_stopped_goes_on():
    """Stopped with an order on its way, then for longer than anybody looks, it misses nothing."""
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        for step, pause in enumerate((0.0, 2 * SPIN_S, 0.05)):
            os.kill(pool.pids[1], signal.SIGSTOP)
            pool.send(actions(step), pool.live)
            time.sleep(pause)
            os.kill(pool.pids[1], signal.SIGCONT)
            assert pool.receive().executed.tolist() == [5] * 5
            time.sleep(pause)
