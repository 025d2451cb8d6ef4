import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from common.errors import Overloaded
from common.slots import Lease, SlotPool

TOTAL = 4


class Tenancy(RuleBasedStateMachine):
    """Leasing and releasing in any order, against a list of who holds what."""

    running = Bundle("running")
    over = Bundle("over")

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool(TOTAL)
        self.tenants: set[Lease] = set()
        self.seen: set[Lease] = set()

    @precondition(lambda self: len(self.tenants) < TOTAL)
    @rule(target=running)
    def lease(self) -> Lease:
        lease = self.pool.lease()
        assert lease not in self.seen
        assert lease.slot not in {tenant.slot for tenant in self.tenants}
        self.tenants.add(lease)
        self.seen.add(lease)
        return lease

    @precondition(lambda self: len(self.tenants) == TOTAL)
    @rule()
    def a_full_pool_refuses(self) -> None:
        with pytest.raises(Overloaded):
            self.pool.lease()

    @rule(target=over, lease=consumes(running))
    def release(self, lease: Lease) -> Lease:
        self.pool.release(lease)
        self.tenants.remove(lease)
        return lease

    @rule(lease=over)
    def a_second_release_is_noticed(self, lease: Lease) -> None:
        assert not self.pool.holds(lease)
        with pytest.raises(RuntimeError):
            self.pool.release(lease)

    @rule(slot=st.integers(-2, TOTAL + 2), ahead=st.integers(1, 5))
    def a_lease_from_nowhere_is_noticed(self, slot: int, ahead: int) -> None:
        with pytest.raises(RuntimeError):
            self.pool.release(Lease(slot, ahead + 10_000))

    @rule(target=over)
    def nothing(self) -> object:
        return multiple()

    @invariant()
    def every_slot_is_in_exactly_one_place(self) -> None:
        assert self.pool.free_count + self.pool.in_use_count == TOTAL
        assert self.pool.in_use_count == len(self.tenants)
        assert all(self.pool.holds(tenant) for tenant in self.tenants)


Tenancy.TestCase.settings = settings(deadline=None)
test_no_slot_is_ever_leased_twice = Tenancy.TestCase


def test_a_refusal_says_when_to_try_again() -> None:
    pool = SlotPool(1)
    pool.lease()
    with pytest.raises(Overloaded) as refusal:
        pool.lease(retry_after_s=0.25)
    assert refusal.value.retry_after_s == 0.25
    assert refusal.value.reason == "NO_SLOT"


def test_the_slot_that_rested_longest_goes_first() -> None:
    pool = SlotPool(3)
    first, second = pool.lease(), pool.lease()
    pool.release(second)
    pool.release(first)
    assert [pool.lease().slot for _ in range(3)] == [2, 1, 0]


def test_a_pool_without_slots_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SlotPool(0)
