from common.playout import Playout


def test_the_clock_of_a_listener_begins_with_the_first_packet_and_loses_what_is_played() -> None:
    playout = Playout(0.08)
    assert (playout.begun, playout.lead_s(5.0)) == (False, 0.0)
    playout.sent(2, 10.0)
    assert playout.begun
    assert abs(playout.lead_s(10.1) - 0.06) < 1e-9
    assert abs(playout.lead_s(10.1, unsent_frames=3) - 0.30) < 1e-9


def test_silence_is_a_pause_and_what_follows_is_heard_at_once() -> None:
    playout = Playout(0.08)
    playout.sent(1, 0.0)
    assert playout.lead_s(60.0) == 0.0
    playout.sent(1, 60.0)
    assert playout.pause_count == 1
    assert abs(playout.lead_s(60.0) - 0.08) < 1e-9
    playout.sent(1, 60.05)
    assert playout.pause_count == 1
