import io

import numpy as np
from handmade import NEVER_B, PLAIN, write_run
from PIL import Image

from raycsr import CostMatrix, certify_counts
from raycsr.reports import load_certified
from raycsr.reports.sureness import plot_sureness, sure_shares


def test_shares_of_right_answers_alone_count():
    votes = np.array([[1000, 0], [0, 1000], [600, 400], [0, 0]])
    errors = [None, None, None, "cut off"]
    certificates = certify_counts(
        votes, votes, [0] * 4, costs=CostMatrix.uniform(2), sigma=0.5, sampling="fixed", errors=errors
    )
    shares = sure_shares(certificates)
    assert shares[:2].tolist() == [0, 0], "wrong, and errored"
    assert shares[2:].tolist() == sorted(certificates["p_a_lower_standard"][[0, 2]])


def test_each_run_and_rule_is_drawn_once(tmp_path):
    runs = [write_run(tmp_path, name, {"argmax": answers}) for name, answers in (("m", PLAIN), ("n", NEVER_B))]
    runs[0].certify("uniform", runs[0].costs("uniform"), 0.01)
    sets, _ = load_certified([run.location for run in runs])
    picture = np.asarray(Image.open(io.BytesIO(plot_sureness(sets))).convert("RGB"))
    assert picture.shape[1] > 400 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_published_table_says_no_shares(tmp_path):
    tsv = tmp_path / "sigma_0.50.tsv"
    tsv.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.5\t1\t0:1\n")
    sets, _ = load_certified([str(tsv)])
    assert plot_sureness(sets) is None
