import math

import numpy as np
import pandas as pd
import pytest

from raycsr import CostMatrix, UserError, certify_counts, summarize
from raycsr.results import format_summary, markdown_table, read_locuslab_tsv
from raycsr.results.tables import (
    at_equal_accuracy,
    distinct_labels,
    format_equal_accuracy,
    format_front,
    front,
    non_dominated,
    write_locuslab_tsv,
)

# Certified accuracy at each radius as published: ImageNet in Cohen, Rosenfeld & Kolter (ICML 2019, table 1), CIFAR-10
# in analysis/markdown of locuslab/smoothing. The tables were made from these files.
PUBLISHED = {
    "imagenet/resnet50/noise_0.25/test/sigma_0.25.tsv": {0.0: 0.67, 0.5: 0.49},
    "imagenet/resnet50/noise_0.50/test/sigma_0.50.tsv": {0.0: 0.57, 0.5: 0.46, 1.0: 0.37, 1.5: 0.29},
    "imagenet/resnet50/noise_1.00/test/sigma_1.00.tsv": {0.0: 0.44, 0.5: 0.38, 1.0: 0.33, 1.5: 0.26, 2.0: 0.19},
    "cifar10/resnet110/noise_0.12/test/sigma_0.12.tsv": {0.25: 0.59},
    "cifar10/resnet110/noise_0.25/test/sigma_0.25.tsv": {0.25: 0.60, 0.5: 0.43, 0.75: 0.27},
    "cifar10/resnet110/noise_0.50/test/sigma_0.50.tsv": {0.25: 0.55, 0.5: 0.41, 0.75: 0.32, 1.0: 0.23, 1.25: 0.15},
    "cifar10/resnet110/noise_1.00/test/sigma_1.00.tsv": {0.25: 0.39, 0.5: 0.34, 0.75: 0.28, 1.0: 0.22, 1.25: 0.17},
}


def certified_accuracy(path, radii):
    certificates = read_locuslab_tsv(str(path))
    m = int(max(certificates["label"].max(), certificates["prediction"].max())) + 1
    summary = summarize(certificates, costs=CostMatrix.uniform(m), radii=radii)
    return dict(zip(radii, summary["certified_accuracy"], strict=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_tables_come_out_of_our_report(shared_data, name):
    path = shared_data / "locuslab-certify" / name
    radii = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.25]
    ours = certified_accuracy(path, radii)
    raw = pd.read_csv(path, sep="\t")
    for radius in radii:
        # "certified at r" means radius > 0 too: the two differ where a correct row has radius 0
        share = (raw["correct"].astype(bool) & (raw["radius"] >= radius) & (raw["radius"] > 0)).mean()
        assert round(ours[radius], 2) == round(share, 2)
    for radius, published in PUBLISHED[name].items():
        assert ours[radius] == pytest.approx(published, abs=0.0051)


def tsv(tmp_path, rows):
    path = tmp_path / "sigma_0.50.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n" + "\n".join("\t".join(row) for row in rows))
    return str(path)


def test_a_locuslab_table_becomes_standard_certificates(tmp_path):
    path = tsv(tmp_path, [("0", "1", "1", "0.5", "1", "0:1"), ("20", "1", "-1", "0.0", "0", "0:1")])
    certificates = read_locuslab_tsv(path)
    assert certificates["image_id"].tolist() == ["0", "20"]
    assert certificates["abstain"].tolist() == [False, True]
    assert certificates["prediction"].isna().tolist() == [False, True]
    row = summarize(certificates, costs=CostMatrix.uniform(2), radii=[0.25]).iloc[0]
    assert (row["accuracy"], row["certified_accuracy"], row["acr"], row["num_sensitive"]) == (0.5, 0.5, 0.25, 0)
    assert math.isnan(row["rob_cs"])


def test_certificates_become_a_locuslab_table():
    counts = np.array([[990, 10], [500, 500], [10, 990], [0, 0]])
    certificates = certify_counts(
        counts,
        counts,
        [0, 0, 0, 0],
        costs=CostMatrix.uniform(2),
        sigma=0.5,
        sampling="fixed",
        image_ids=["0", "7", "14", "21"],
        errors=[None, None, None, "OSError: cut off"],
    )
    radius = float(certificates["standard_radius"][0])
    assert 0.95 < radius < 0.5 * 2.3264  # Phi^-1(0.99), from above
    assert write_locuslab_tsv(certificates, [152.717392, 60, 3600, 0]) == (
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
        f"0\t0\t0\t{radius!r}\t1\t0:02:32.717392\n"
        "7\t0\t-1\t0.0\t0\t0:01:00\n"  # abstains
        f"14\t0\t1\t{radius!r}\t0\t1:00:00\n"
        "21\t0\t-1\t0.0\t0\t0:00:00\n"  # has an error
    )


def test_a_locuslab_table_of_ours_reads_back_to_the_last_digit(tmp_path):
    generator = np.random.default_rng(0)
    counts = np.stack([n := generator.integers(0, 100_001, 500), 100_000 - n], axis=1)
    certificates = certify_counts(
        counts, counts, generator.integers(0, 2, 500), costs=CostMatrix.uniform(2), sigma=0.7, sampling="fixed"
    )
    (tmp_path / "ours.tsv").write_text(write_locuslab_tsv(certificates))
    again = read_locuslab_tsv(str(tmp_path / "ours.tsv"))
    for name in ("image_id", "rule", "label", "abstain", "alpha"):
        assert again[name].tolist() == certificates[name].tolist(), name
    # but for the last bit, which pandas 2 may lose in reading
    assert again["standard_radius"].tolist() == pytest.approx(certificates["standard_radius"].tolist(), rel=1e-15)
    answered = ~certificates["abstain"]
    assert again["prediction"][answered].tolist() == certificates["prediction"][answered].tolist()
    assert again["prediction"][~answered].isna().all() and 0 < answered.sum() < 500


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_comes_back_to_the_last_digit(shared_data, name):
    path = shared_data / "locuslab-certify" / name
    text = write_locuslab_tsv(read_locuslab_tsv(str(path)))
    ours, theirs = ([line.rsplit("\t", 1)[0] for line in table.splitlines()] for table in (text, path.read_text()))
    assert ours == theirs  # but for the time, which is not part of a certificate


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "other.tsv"
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(
        UserError, match="is not a locuslab table: it has no column correct, idx, label, predict, radius"
    ):
        read_locuslab_tsv(str(path))
    with pytest.raises(UserError, match="cannot read .*absent.tsv"):
        read_locuslab_tsv(str(tmp_path / "absent.tsv"))


def test_markdown_lines_up_in_a_terminal():
    assert markdown_table([["a", "long name"], ["1.25", "x"]]).splitlines() == [
        "| a    | long name |",
        "|------|-----------|",
        "| 1.25 | x         |",
    ]


def test_a_summary_shows_intervals_and_leaves_out_what_is_unknown(tmp_path):
    path = tsv(tmp_path, [("0", "1", "1", "0.5", "1", "0:1")])
    summary = summarize(read_locuslab_tsv(path), costs=CostMatrix.uniform(2), radii=[0.25])
    text = format_summary(summary.assign(run="r", costs="c", rule="argmax", rule_id="argmax"))
    assert "1.000 [0.207, 1.000]" in text  # Wilson for 1 of 1
    assert text.splitlines()[2].count(" - ") == 3  # rob_cs, rob_cost, worst cost
    assert "rule" not in text
    text = format_summary(summary.assign(run="r", costs="c", rule="offset:1*pair:0/1", rule_id="offset-0123456789"))
    assert "| rule " in text and "| offset:1*pair:0/1 |" in text and "0123456789" not in text


def points(*rows):
    """Rows of a summary at one radius: run, rule, accuracy, rob_cs; the rule's name serves as its id."""
    table = pd.DataFrame(rows, columns=["run", "rule", "accuracy", "rob_cs"])
    return table.assign(costs="seed:cat", rule_id=table["rule"], radius=0.25, seed_recall=0.7, target_recall=0.4)


def cells(markdown):
    """The rows of a Markdown table below its header."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()[2:]]


def test_a_point_is_dominated_by_one_that_is_as_good_in_both_and_better_in_one():
    accuracy = [0.70, 0.70, 0.65, 0.65, 0.60, 0.70, 0.90]
    rob_cs = [0.30, 0.40, 0.40, 0.50, 0.50, 0.40, math.nan]
    #         first: same accuracy, less rob_cs than the second; third: less accuracy, same rob_cs; fifth likewise;
    #         the second and the sixth are one point twice, and neither beats the other; the last has no rob_cs
    assert non_dominated(accuracy, rob_cs).tolist() == [False, True, False, True, False, True, False]


def test_the_front_is_each_runs_own_and_says_what_is_best_of_all():
    table = points(
        ("a", "argmax", 0.70, 0.30),
        ("a", "worse", 0.60, 0.30),
        ("a", "strong", 0.60, 0.50),
        ("b", "argmax", 0.65, 0.60),
    )
    on_front = front(table)
    assert on_front[["run", "rule", "best"]].to_numpy().tolist() == [
        ["a", "argmax", True],
        ["a", "strong", False],  # b's argmax is better in both
        ["b", "argmax", True],
    ]
    assert format_front(on_front).splitlines()[0].endswith("| best of all runs |")
    assert "best of all runs" not in format_front(front(table[table["run"] == "a"]))
    assert cells(format_front(on_front))[1] == ["seed:cat", "a", "strong", "0.600", "0.500", "0.700", "0.400", ""]


def test_runs_are_compared_at_the_accuracy_of_the_best_argmax_less_a_loss():
    table = points(
        ("a", "argmax", 0.52, 0.30),  # the reference, although not the most accurate of all rules
        ("a", "mild", 0.53, 0.40),
        ("a", "strong", 0.47, 0.80),  # 0.52 - 0.05, which is a bit more in floating point
        ("b", "argmax", 0.48, 0.60),
        ("b", "mild", 0.51, 0.50),
    )
    assert at_equal_accuracy(table, [0.01])[["run", "reference", 0.01]].to_numpy().tolist() == [
        ["a", True, 0.40],
        ["b", False, 0.50],
    ]
    assert cells(format_equal_accuracy(at_equal_accuracy(table))) == [
        ["seed:cat", "a (reference)", "0.400", "0.400", "0.400", "0.800"],  # less 0, 0.01, 0.025, 0.05
        ["seed:cat", "b", "-", "0.500", "0.500", "0.600"],
    ]
    assert at_equal_accuracy(table[table["rule"] != "argmax"]).empty


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a/one.pt", "a/two.pt"], ["one.pt", "two.pt"]),
        (["x/gaussian/last.pt", "x/margin_cs/last.pt"], ["gaussian/last.pt", "margin_cs/last.pt"]),
        (["s3://b/gaussian/ckpt/last.pt", "s3://b/macer/ckpt/last.pt"], ["gaussian/…/last.pt", "macer/…/last.pt"]),
        (["a/x/last.pt", "b/x/last.pt", "b/y/last.pt"], ["a/x/last.pt", "b/x/last.pt", "b/y/last.pt"]),
        (["last.pt", "x/last.pt"], ["last.pt", "x/last.pt"]),
        (["resnet50", "resnet50"], ["resnet50 012345", "resnet50 abcdef"]),
        (["x/a.pt", "x/a.pt", "y/a.pt"], ["x/a.pt 012345", "x/a.pt abcdef", "y/a.pt"]),
    ],
)
def test_labels_that_would_be_equal_are_told_apart_by_the_nearest_folders_that_differ(paths, labels):
    ids = ["0123456789", "abcdefabcd", "9876543210"]
    assert distinct_labels([(path, "", run_id) for path, run_id in zip(paths, ids, strict=False)]) == labels


def test_the_noise_level_tells_runs_of_one_model_apart():
    assert distinct_labels([("x/a.pt", " σ=0.25", "0"), ("x/a.pt", " σ=0.5", "1")]) == ["a.pt σ=0.25", "a.pt σ=0.5"]
