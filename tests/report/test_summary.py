"""`summary.json`: what goes in comes out."""

import json
import math

import numpy as np
import pytest

from wamrl.report import arm, ratio_text, read_summary, write_summary
from wamrl.stats.paired import paired_difference, wilson


def test_a_ratio_that_was_not_measured_is_a_dash():
    assert ratio_text({4: 0.7, 8: math.nan, "12": None}) == "+4: 0.70, +8: -, +12: -"


def test_summary_round_trip(tmp_path):
    success = np.array([True, False, True, True])
    kind = {"task": "point", "stages": 1, "seed": 0}
    base = arm(
        **kind,
        success=success,
        length=np.array([3, 9, 4, 4]),
        error_over_copy={4: 0.7, 8: math.nan},
    )
    none = arm(**kind, success=success[:0], length=success[:0], error_over_copy={})
    pair = paired_difference(success, ~success)
    write_summary(
        tmp_path / "summary.json",
        {"base": base, "none": none},
        {"base->none": pair},
        machine=np.int64(2),
    )
    back = read_summary(tmp_path / "summary.json")
    assert back["arms"]["base"] == base | {
        "wilson95": list(wilson(3, 4)),
        "error_over_copy": {"4": 0.7, "8": None},
    }
    assert (
        back["arms"]["base"]["mean_length"] == 5
        and back["arms"]["none"]["rate"] is None
        and back["machine"] == 2
    )
    assert (
        back["paired"]["base->none"]["gained"] == 1
        and "NaN" not in (tmp_path / "summary.json").read_text()
    )
    assert json.loads(json.dumps(back)) == back and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="run the evaluation again"):
        read_summary(tmp_path / "other.json")
