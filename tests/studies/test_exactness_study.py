"""The exactness study writes every comparison of every prompt, with its manifest."""

import json

import pandas as pd

from medv_lab.studies.exactness_study import CACHES, WAYS, run_exactness
from tests.model.tiny import tiny_model, tiny_processor


def test_every_way_is_compared_for_every_prompt(tmp_path):
    scores = run_exactness(tiny_model(), tiny_processor(), tmp_path, questions=2)
    assert list(dict.fromkeys(scores.comparison)) == [*WAYS, *CACHES]
    assert scores.groupby("comparison").prompt.apply(list).tolist() == [[0, 1]] * (len(WAYS) + len(CACHES))
    stored = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(stored, scores, check_dtype=False, rtol=1e-4)
    refreshed = scores[scores.comparison == "no cache, dual cache always refreshed"]
    assert (refreshed.different == 0).all()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["settings"]["questions"] == 2 and manifest["versions"]
