"""Fidelity by hand."""

import math

import numpy as np
import pytest

from dermdistill.errors import UserError
from dermdistill.evaluation import fidelity
from dermdistill.metrics import predictions


def known(rows: list[list[float]], names: str = "abc") -> predictions.Predictions:
    return predictions.build(list(names), list(names), ["nv", "mel", "nv"], np.array(rows))


A = [[0.5, 0.5, 0, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0]]
B = [[0.75, 0.25, 0, 0, 0, 0, 0], [0.8, 0.2, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0]]


def test_fidelity_by_hand() -> None:
    found = fidelity.measure(known(A), known(B), 20, 0)
    kl = [0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2), 0.2 * math.log(0.25) + 0.8 * math.log(4), 0]
    assert found["agreement"] == pytest.approx(2 / 3) and found["kl"] == pytest.approx(np.mean(kl))
    assert found["intervals"]["kl"][0] <= found["kl"] <= found["intervals"]["kl"][1]
    same = fidelity.measure(known(A), known(A), 20, 0)
    assert (same["agreement"], same["kl"]) == (1.0, 0.0)
    assert fidelity.measure(known(B), known(A), 20, 0)["kl"] != found["kl"]  # from the teacher's side


def test_fidelity_needs_the_same_images() -> None:
    with pytest.raises(UserError, match="differ in images"):
        fidelity.measure(known(A), known(B, "abd"), 20, 0)
