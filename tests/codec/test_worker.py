"""The engine's thread over a device that only counts: order of steps, hand-over, faults."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import Broken
from common.stream import FinishReason
from services.codec.schedule import Buckets, Row
from services.codec.session import Session
from services.codec.sound import SoundFormat
from services.codec.types import AudioBatch, Codes, Encoding, Ended, Event
from services.codec.worker import Launched, Worker
from tests.codec.hearing import random_codes


class CountingDevice:
    """Remembers its steps; each waits for a permit, so that a test decides what is fed between two."""

    buckets = Buckets((1, 2, 4), (1, 2, 4), step_frames=8, pad_rows=False)
    first_buckets: Buckets | None = None

    def __init__(self) -> None:
        self.steps: list[list[tuple[int, int]]] = []
        self.copies: list[tuple[int, int]] = []
        self.permits = threading.Semaphore(0)
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.broken = False

    def launch(self, rows: Sequence[Row], *, first: bool = False) -> Launched:
        assert not first, "there is one lane here"
        self.begun.put(len(self.steps))
        assert self.permits.acquire(timeout=10)
        if self.broken:
            raise RuntimeError("device lost")
        self.steps.append([(row.slot, len(row.codes)) for row in rows])
        silence = [np.zeros(1920 * len(row.codes), np.float32) for row in rows]
        return SimpleNamespace(ready=lambda: True, samples=lambda: silence)

    def copy_slot(self, source: int, target: int) -> None:
        self.copies.append((source, target))


@pytest.fixture
def device() -> CountingDevice:
    return CountingDevice()


@pytest.fixture
def worker(device: CountingDevice) -> Iterator[Worker]:
    running = Worker(device, slots=4, parked=2, primed=1, max_undelivered=100)
    running.start()
    yield running
    device.permits.release(1000)
    running.stop()
    running.join()


class Ears:
    """What one session posts."""

    def __init__(self, worker: Worker, slot: int | None, follows: Session | None = None, prime: Codes = ()) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        form = SoundFormat(Encoding.PCM_S16LE, 24_000, 1)
        self.session = Session(form, 24_000, 1920, prime, self.events.put, lambda: 0, worker.wake, None)
        worker.open(self.session, slot, follows)

    def end(self) -> Ended:
        while not isinstance(event := self.events.get(timeout=10), Ended):
            assert isinstance(event, AudioBatch)
        return event


def test_a_first_frame_overtakes_what_is_queued(worker: Worker, device: CountingDevice) -> None:
    long, new = Ears(worker, 0), Ears(worker, 1)
    worker.feed(long.session, random_codes(9))
    device.begun.get(timeout=10)  # the first frame of the long one is being decoded
    worker.feed(new.session, random_codes(4))
    for ears in (long, new):
        worker.flush(ears.session)
    device.permits.release(100)
    assert (long.end().reason, new.end().reason) == (FinishReason.COMPLETED, FinishReason.COMPLETED)
    assert device.steps[:2] == [[(0, 1)], [(1, 1)]]
    assert sum(frames for step in device.steps for slot, frames in step if slot == 0) == 9


def test_a_cancel_waits_for_one_step_at_most(worker: Worker, device: CountingDevice) -> None:
    ears = Ears(worker, 0)
    worker.feed(ears.session, random_codes(100))
    device.begun.get(timeout=10)
    worker.cancel(ears.session)
    device.permits.release(100)
    assert ears.end().reason is FinishReason.CANCELLED
    assert len(device.steps) == 1


def test_a_follower_waits_and_takes_the_slot_as_it_stands(worker: Worker, device: CountingDevice) -> None:
    before = Ears(worker, 2)
    after = Ears(worker, None, before.session)
    worker.feed(after.session, random_codes(1))
    worker.flush(after.session)
    worker.feed(before.session, random_codes(1))
    worker.flush(before.session)
    device.permits.release(100)
    assert before.end().reason is after.end().reason is FinishReason.COMPLETED
    assert device.steps == [[(2, 1)], [(2, 1)]]
    assert device.copies == [(2, 4)]  # only the end of the answer is parked


def test_a_voice_is_primed_once_and_then_copied(worker: Worker, device: CountingDevice) -> None:
    device.permits.release(100)
    for slot in (0, 1):
        ears = Ears(worker, slot, prime=random_codes(6))
        worker.feed(ears.session, random_codes(1))
        worker.flush(ears.session)
        assert ears.end().frame_count == 1
    assert [step for step in device.steps if step[0][0] == 0] == [[(0, 4)], [(0, 2)], [(0, 1)]]
    assert [step for step in device.steps if step[0][0] == 1] == [[(1, 1)]]
    assert (0, 6) in device.copies
    assert (6, 1) in device.copies


def test_a_device_fault_ends_everyone_now_and_later(worker: Worker, device: CountingDevice) -> None:
    device.broken = True
    device.permits.release(100)
    first, bystander = Ears(worker, 0), Ears(worker, 1)
    worker.feed(first.session, random_codes(1))
    for ears in (first, bystander, Ears(worker, 2)):
        ended = ears.end()
        assert ended.reason is FinishReason.FAILED
        assert isinstance(ended.error, Broken)
    assert isinstance(worker.fault, Broken)


def test_each_step_is_told_to_the_observer(device):
    told: list[tuple[float, int]] = []
    observer = SimpleNamespace(step=lambda duration_s, batch_size: told.append((duration_s, batch_size)))
    running = Worker(device, slots=4, parked=2, primed=1, max_undelivered=100, observer=observer)
    device.permits.release(1000)
    running.start()
    ears = Ears(running, 0)
    running.feed(ears.session, random_codes(3))
    running.flush(ears.session)
    ears.end()
    running.stop()
    running.join()
    assert [rows for _, rows in told] == [1] * len(device.steps)
    assert all(duration_s > 0 for duration_s, _ in told)


def test_a_device_fault_is_told_once(device: CountingDevice) -> None:
    told: list[Exception] = []
    running = Worker(device, slots=4, parked=2, primed=1, max_undelivered=100, on_fault=told.append)
    device.broken = True
    device.permits.release(100)
    running.start()
    for slot in (0, 1):
        ears = Ears(running, slot)
        running.feed(ears.session, random_codes(1))
        ears.end()
    running.stop()
    running.join()
    assert told == [running.fault]


class TwoLanes:
    """Ordinary steps end when the test says so; those of first frames at once."""

    buckets = Buckets((1, 2, 4), (1, 2, 4), step_frames=8, pad_rows=True)
    first_buckets = Buckets((1, 2), (1,), step_frames=2, pad_rows=True)

    def __init__(self) -> None:
        self.steps: queue.SimpleQueue[tuple[bool, list[tuple[int, bool]]]] = queue.SimpleQueue()
        self.landing: set[int] = set()
        self.may_land = threading.Event()

    def launch(self, rows: Sequence[Row], *, first: bool = False) -> Launched:
        slots = {row.slot for row in rows}
        assert not slots & self.landing, "a row is in two steps at once"
        if not first:
            self.landing |= slots
        self.steps.put((first, [(row.slot, row.fresh) for row in rows]))
        silence = [np.zeros(1920 * len(row.codes), np.float32) for row in rows]

        def samples() -> list[np.ndarray]:
            self.landing -= slots
            return silence

        return SimpleNamespace(ready=lambda: first or self.may_land.is_set(), samples=samples)

    def copy_slot(self, source: int, target: int) -> None:
        assert not {source, target} & self.landing


@pytest.fixture
def laned() -> Iterator[tuple[TwoLanes, Worker]]:
    device = TwoLanes()
    running = Worker(device, slots=4, parked=2, primed=1, max_undelivered=100)
    running.start()
    yield device, running
    device.may_land.set()
    running.stop()
    running.join()


def heard_once(worker: Worker, device: TwoLanes, slot: int) -> Ears:
    """A session whose first frame is out and whose next ones are in flight."""
    ears = Ears(worker, slot)
    worker.feed(ears.session, random_codes(4))
    assert device.steps.get(timeout=10) == (True, [(slot, True)])
    assert isinstance(ears.events.get(timeout=10), AudioBatch)
    assert device.steps.get(timeout=10) == (False, [(slot, False)])
    return ears


def test_a_first_frame_is_heard_while_another_step_is_in_flight(laned: tuple[TwoLanes, Worker]) -> None:
    device, worker = laned
    long = heard_once(worker, device, 0)
    new = Ears(worker, 1)
    worker.feed(new.session, random_codes(1))
    worker.flush(new.session)
    assert new.end().reason is FinishReason.COMPLETED
    worker.flush(long.session)
    device.may_land.set()
    assert (long.end().reason, long.session.frames_taken) == (FinishReason.COMPLETED, 4)


def test_a_cancel_does_not_wait_for_the_step_in_flight_but_the_next_tenant_does(
    laned: tuple[TwoLanes, Worker],
) -> None:
    device, worker = laned
    ears = heard_once(worker, device, 0)
    worker.cancel(ears.session)
    assert ears.end().reason is FinishReason.CANCELLED
    tenant = Ears(worker, 0)
    worker.feed(tenant.session, random_codes(1))
    with pytest.raises(queue.Empty):
        device.steps.get(timeout=0.05)
    device.may_land.set()
    assert device.steps.get(timeout=10) == (True, [(0, True)])
    assert ears.events.empty(), "nothing may follow the end"


def test_an_utterance_does_not_complete_before_its_last_step_has_landed(laned: tuple[TwoLanes, Worker]) -> None:
    device, worker = laned
    ears = heard_once(worker, device, 0)
    worker.flush(ears.session)
    other = Ears(worker, 1)
    worker.feed(other.session, random_codes(1))
    worker.flush(other.session)
    other.end()
    assert ears.events.empty()
    device.may_land.set()
    assert sum(event.frame_count for event in iter_events(ears)) == 3


def iter_events(ears: Ears) -> Iterator[AudioBatch]:
    while not isinstance(event := ears.events.get(timeout=10), Ended):
        assert isinstance(event, AudioBatch)
        yield event
