"""What waits at senders and was refused there reaches a replica once, in tokens."""

from __future__ import annotations

from bgeserve.caller import A_JOB, ANYONE
from bgeserve.splitting import BYTES_PER_TOKEN
from bgeserve.unmet import REMEMBERED_S, UnmetHeard, UnmetHere


def test_what_has_not_been_sent_waits_until_its_request_ends() -> None:
    here, heard = UnmetHere(), UnmetHeard()

    def waiting_tokens() -> float:
        heard.hear(here.told_by(A_JOB), now=0)
        return heard.waiting_tokens(now=0)

    with here.waiting(1000 * BYTES_PER_TOKEN) as unsent:
        assert waiting_tokens() == 1000
        unsent.sent(400 * BYTES_PER_TOKEN)
        with here.waiting(50 * BYTES_PER_TOKEN):
            assert waiting_tokens() == 650
    assert waiting_tokens() == 0


def test_refusals_are_told_once() -> None:
    here, heard = UnmetHere(), UnmetHeard()
    here.refused(70 * BYTES_PER_TOKEN)
    here.refused(30 * BYTES_PER_TOKEN)
    for _ in range(3):
        heard.hear(here.told_by(ANYONE), now=0)
    assert heard.refused_tokens == 100


def test_senders_add_up_and_one_that_is_not_heard_of_is_forgotten() -> None:
    heard, one, other = UnmetHeard(), UnmetHere(), UnmetHere()
    with one.waiting(10 * BYTES_PER_TOKEN), other.waiting(20 * BYTES_PER_TOKEN):
        heard.hear(one.told_by(A_JOB), now=0)
        heard.hear(other.told_by(A_JOB), now=1)
        assert heard.waiting_tokens(now=REMEMBERED_S) == 30
        assert heard.waiting_tokens(now=REMEMBERED_S + 0.5) == 20
    assert heard.waiting_tokens(now=REMEMBERED_S + 2) == 0


def test_who_does_not_say_where_it_is_from_says_nothing_of_what_waits() -> None:
    heard = UnmetHeard()
    heard.hear(ANYONE, now=0)
    assert (heard.waiting_tokens(now=0), heard.refused_tokens) == (0, 0)
