"""The rule of the claims, and the sentence that it gives."""

import pytest

from wamrl.stats.nested import Estimate
from wamrl.study.claims import Claim, sentence, verdict


def estimate(low: float, high: float, seeds: int = 3) -> Estimate:
    return Estimate(
        value=(low + high) / 2,
        low=low,
        high=high,
        tasks=2,
        seeds=seeds,
        episodes=600,
        method="bootstrap",
    )


@pytest.mark.parametrize(
    ("low", "high", "gain", "no_gain"),
    [
        (0.01, 0.20, "supported", "not supported"),
        (0.01, 0.04, "supported", "not supported"),  # small, yet a gain
        (-0.02, 0.04, "not supported", "supported"),  # no gain of five points
        (-0.30, -0.10, "not supported", "supported"),
        (-0.02, 0.06, "undecided", "undecided"),
        (0.0, 0.06, "undecided", "undecided"),  # touching 0 does not exclude it
        (-0.02, 0.05, "undecided", "undecided"),
    ],
)
def test_the_rule_of_the_claims(low, high, gain, no_gain):
    assert verdict(estimate(low, high), "gain", 0.05) == gain
    assert verdict(estimate(low, high), "no gain", 0.05) == no_gain
    assert verdict(estimate(low, high, seeds=2), "gain", 0.05) == "undecided"
    assert verdict(None, "gain", 0.05) == "not tested"


def test_a_claim_is_one_sentence_with_its_n():
    claim = Claim(number=4, text="joint helps", arm="wamrl", against="base", kinds=("staged",))
    text = sentence(claim, estimate(0.01, 0.20), 0.05)
    assert (
        "**supported** at n = 600 pairs of episodes, 2 tasks x 3 seeds: +10.5 [+1.0, +20.0] points."
        in text
    )
    assert "Claim 4" in text and "`wamrl` - `base`" in text
    assert "fewer than 3 seeds" in sentence(claim, estimate(0.01, 0.20, seeds=2), 0.05)
    assert "not tested" in sentence(claim, None, 0.05) and "staged" in sentence(claim, None, 0.05)
