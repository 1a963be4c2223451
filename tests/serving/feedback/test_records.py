"""Records without a database."""

from digit_serving.feedback.records import is_held_out, is_sampled


def test_held_out_requests_are_a_fifth_of_all() -> None:
    held_out = sum(is_held_out(f"request-{number}") for number in range(5000))
    assert 900 < held_out < 1100


def test_sampled_requests_are_their_share_of_all_and_of_held_out_ones() -> None:
    requests = [f"request-{number}" for number in range(20_000)]
    sampled = [request for request in requests if is_sampled(request, 0.1)]
    assert 1900 < len(sampled) < 2100
    assert 340 < sum(map(is_held_out, sampled)) < 460
    assert not any(is_sampled(request, 0) for request in requests)
    assert all(is_sampled(request, 1) for request in requests)
