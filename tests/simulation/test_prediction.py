"""An operator's rates: what a file may say, and that a fleet too large to simulate whole is predicted by a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgeserve.errors import InvalidRequest
from bgeserve.scaling import Rule
from bgeserve.simulation import prediction
from bgeserve.simulation.limits import limits
from bgeserve.simulation.prediction import coarseness, predict
from bgeserve.simulation.rates import Rate, Together, arrivals, peak, read_rates
from bgeserve.simulation.replica import Speed

HEADER = "at_s,model,requests_per_s,tokens_per_request,lane\n"
SPEED = Speed(tokens_per_s=10_000, max_batch_tokens=2000)
RULE = Rule(min=0, max=4000, target_backlog_s=0.5, cold_start_s=20, hold_down_s=60, idle_s=100)


def read(folder: Path, content: str) -> dict[str, list[Rate]]:
    path = folder / "rates.csv"
    path.write_text(content)
    return read_rates(path)


def test_a_row_holds_until_the_next_of_its_model_and_lane_and_the_last_time_ends_all(tmp_path: Path) -> None:
    content = "0,a,10,100,\n0,a,1,5000,bulk\n0,b,2,50,interactive\n60,a,20,100,interactive\n100,a,0,1,interactive\n"
    assert read(tmp_path, HEADER + content) == {
        "a": [Rate(0, 60, 10, 100), Rate(0, 100, 1, 5000, "bulk"), Rate(60, 100, 20, 100)],
        "b": [Rate(0, 100, 2, 50)],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "at_s, model, requests_per_s, tokens_per_request are missing"),
        ("at_s,model\n", "requests_per_s, tokens_per_request are missing"),
        (HEADER, "must be above 0"),
        (HEADER + "0,a,1,1,\n", "must be above 0"),
        (HEADER + "0,a,many,1,\n", "rates.csv:2: requests_per_s is 'many'"),
        (HEADER + "0,a,1,1,\n-5,a,1,1,\n", "rates.csv:3: at_s is '-5'"),
        (HEADER + "0,a,inf,1,\n", "requests_per_s is 'inf'"),
        (HEADER + "0,a,1,0,\n", "tokens_per_request is 0; a request has at least 1"),
        (HEADER + "0,a,1,1,fast\n", "lane is 'fast'; it is interactive or bulk"),
        (HEADER + "0,,1,1,\n", "rates.csv:2: model is empty"),
        (HEADER + "0,a\n", "rates.csv:2: requests_per_s is None"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(tmp_path, content)
    assert said in refused.value.message


def test_arrivals_come_in_order_at_their_rates_and_are_the_same_each_time() -> None:
    rates = [Rate(0, 1000, 10, 100), Rate(500, 1000, 5, 7, "bulk")]
    drawn = list(arrivals(rates))
    assert drawn == list(arrivals(rates))
    assert [one.at_s for one in drawn] == sorted(one.at_s for one in drawn)
    assert len(drawn) == pytest.approx(10_000 + 2500, rel=0.03)
    fewer = list(arrivals(rates, together=Together(5, 600), one_of=2))
    assert {one.requests for one in fewer} == {5}
    assert sum(one.requests for one in fewer) == pytest.approx(12_500 / 2, rel=0.1)


def test_the_peak_is_of_what_goes_on_together() -> None:
    assert peak([Rate(0, 10, 5, 1), Rate(5, 20, 3, 1), Rate(10, 30, 4, 1)], lambda rate: rate.requests_per_s) == 8
    assert peak([], lambda rate: 1.0) == 0


def test_a_steady_load_is_predicted_by_hand() -> None:
    """5 replicas' worth for 1,000 s: above 5 replicas and below twice as many, after the first cold start."""
    said = predict(SPEED, RULE, [Rate(0, 1000, 500, 100)], timeout_s=30, start_s=20, request_s=0.007)
    assert said.requests == pytest.approx(500_000, rel=0.02)
    steady = said.periods[6]
    assert 5 <= steady.replicas <= 8
    assert steady.tokens_per_s == pytest.approx(50_000)
    assert said.p50_s is not None
    assert 0.01 <= said.p50_s <= 0.3
    assert said.jobs_p99_s is None


def test_a_part_of_a_fleet_tells_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [Rate(0, 60, 300, 1500), Rate(60, 160, 1200, 1500)]
    monkeypatch.setattr(prediction, "MAX_ARRIVALS", 1_000_000)
    whole = predict(SPEED, RULE, rates, timeout_s=30, start_s=20, request_s=0)
    monkeypatch.setattr(prediction, "MAX_ARRIVALS", 60_000)
    part = predict(SPEED, RULE, rates, timeout_s=30, start_s=20, request_s=0)
    assert (whole.simulated_part, part.simulated_part) == (1, 3)
    assert part.replica_s == pytest.approx(whole.replica_s, rel=0.05)
    assert part.most_replicas == pytest.approx(whole.most_replicas, rel=0.1)
    assert part.requests == pytest.approx(whole.requests, rel=0.02)


def test_thousands_of_replicas_are_not_looked_at_one_by_one() -> None:
    small, large = Rate(0, 3600, 300_000, 100), Rate(0, 3600, 1000, 10_000, "bulk")
    together, part = coarseness(SPEED, [small, large])
    assert (together.of(small), together.of(large), part) == (5, 1, 80)
    assert coarseness(SPEED, [Rate(0, 60, 100, 100)]) == (Together(1, 500), 1)


def test_what_is_full_first_is_named() -> None:
    found = {limit.what: limit for limit in limits(requests_per_s=5000, searches_per_s=500, replicas=20)}
    assert found["ingress"].needed > 5
    assert not found["ingress"].is_reached  # there may be more of them
    assert found["store"].is_reached
    assert not found["controller"].is_reached
    assert {limit.what for limit in limits(10, 0, 1)} == {"ingress", "controller"}
