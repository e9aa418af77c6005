"""Tables of others, and ours for others."""

import math

import numpy as np
import pandas as pd
import pytest

from raycsr import CostMatrix, UserError, certify_counts, summarize
from raycsr.results.locuslab import is_table, read_locuslab_tsv, write_locuslab_tsv

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
        # ours is not certified where the table has r itself, which in three digits may be rounded up
        assert ours[radius] == pytest.approx((raw["correct"] * (raw["radius"] > radius)).mean(), abs=1e-9)
    for radius, published in PUBLISHED[name].items():
        assert published == pytest.approx((raw["correct"] * (raw["radius"] >= radius)).mean(), abs=0.0051)
        assert published - 0.0151 < ours[radius] < published + 0.0051


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
    assert (row["accuracy"], row["certified_accuracy"], row["acr"], row["num_sensitive"]) == (0.5, 0.5, 0.4995 / 2, 0)
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
    for name in ("image_id", "rule", "label", "abstain"):
        assert again[name].tolist() == certificates[name].tolist(), name
    # but for half a unit of the last digit
    assert again["standard_radius"].tolist() == pytest.approx(certificates["standard_radius"].tolist(), rel=1e-15)
    answered = ~certificates["abstain"]
    assert again["prediction"][answered].tolist() == certificates["prediction"][answered].tolist()
    assert again["prediction"][~answered].isna().all() and 0 < answered.sum() < 500


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_a_published_table_only_the_radii_change_by_half_a_unit_of_their_third_digit(shared_data, name):
    path = shared_data / "locuslab-certify" / name
    raw, ours = pd.read_csv(path, sep="\t"), read_locuslab_tsv(str(path))
    assert ours["image_id"].tolist() == raw["idx"].astype(str).tolist()
    assert ours["label"].tolist() == raw["label"].tolist()
    assert ours["prediction"].fillna(-1).tolist() == raw["predict"].tolist()
    less = raw["radius"] - ours["standard_radius"]
    positive = raw["radius"] > 0
    assert (less[~positive] == 0).all()
    assert (less[positive] / raw["radius"][positive]).between(0.0005, 0.00501).all()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0.165", 0.1645),
        ("1.0", 0.995),  # {:.3} leaves zeros out
        ("0.5", 0.4995),
        ("0.0125", 0.01245),
        ("0.00187", 0.001865),
        ("2.12", 2.115),
        ("1e-05", 0.995e-5),
        ("0.9301", 0.93005),  # others may write more
        ("0.930", 0.9295),
        ("0.0", 0.0),
        ("0", 0.0),
    ],
)
def test_a_radius_that_may_be_rounded_up_is_lowered_by_half_a_unit(tmp_path, written, read):
    path = tsv(tmp_path, [("0", "1", "1", written, "1", "0:1")])
    radius = read_locuslab_tsv(path)["standard_radius"].iloc[0]
    assert radius == pytest.approx(read, rel=1e-12) and radius >= 0


def test_a_table_does_not_say_its_alpha_and_has_no_guaranteed_share_without(tmp_path):
    path = tsv(tmp_path, [(str(i), "1", "1", "0.5", "1", "0:1") for i in range(1000)])

    def guaranteed(certificates):
        summary = summarize(certificates, costs=CostMatrix.uniform(2), radii=[0.25])
        return summary["certified_accuracy_guaranteed"].iloc[0]

    assert math.isnan(guaranteed(read_locuslab_tsv(path)))
    assert guaranteed(read_locuslab_tsv(path, alpha=0.001)) == pytest.approx(0.995)  # 5 of 1000 by binom.ppf(.999)


def test_a_table_is_a_file_whatever_its_name_and_how_its_lines_end(tmp_path):
    (tmp_path / "sigma_0.50").write_bytes(
        b"\xef\xbb\xbfidx\tlabel\tpredict\tradius\tcorrect\ttime\r\n0\t3\t3\t0.5\t1\t0:1"
    )
    assert is_table(str(tmp_path / "sigma_0.50")) and not is_table(str(tmp_path)) and not is_table("nothing")
    assert read_locuslab_tsv(str(tmp_path / "sigma_0.50"))["label"].tolist() == [3]


def test_a_table_may_lie_where_runs_may(store):
    store.write("sigma_0.50", f"{HEADER}\n{FIRST}\n".encode())
    assert is_table(f"{store.location}/sigma_0.50") and not is_table(store.location)
    assert read_locuslab_tsv(f"{store.location}/sigma_0.50")["standard_radius"].tolist() == [0.4995]


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
FIRST = "0\t3\t3\t0.5\t1\t0:1"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no results, only a header"),
        ([FIRST, HEADER, FIRST], "second header in line 3: several tables in one file"),
        ([FIRST, "20\t3\t3\t0.5\t1\t0:1", FIRST], "line 4 of .* has idx 0, as line 2 has"),
        ([FIRST, "20\t3\t3\t0."], r"line 3 of .* is no result: '20\\t3\\t3\\t0.'"),  # cut off
        ([FIRST, "", "20\t3\t3\t0.5\t1\t0:1"], "line 3 of .* is no result: ''"),
        ([FIRST, "", ""], "line 3 of .* is no result"),
        (["x\t3\t3\t0.5\t1\t0:1"], "line 2 of .* is no result"),
        (["0\t3.5\t3\t0.5\t1\t0:1"], "line 2"),
        (["0\t3\t3\tnan\t1\t0:1"], "line 2"),
        (["0\t3\t3\tinf\t1\t0:1"], "line 2"),
        (["0\t3\t3\t1e999999999\t1\t0:1"], "line 2"),
        (["0\t3\t3\t-0.5\t1\t0:1"], "line 2"),
        (["0\t3\t3\t0.5\t0\t0:1"], "line 2"),  # right, and said to be wrong
        (["0\t3\t-1\t0.5\t0\t0:1"], "line 2"),  # abstains, and has a radius
        (["0\t-1\t-1\t0.0\t1\t0:1"], "line 2"),
        ([f"0\t{'9' * 5000}\t3\t0.5\t0\t0:1"], "line 2"),
        (["0\t3\t99999999\t0.5\t0\t0:1"], "line 2 .*classes are 0 to 9999"),
    ],
)
def test_what_is_no_result_is_refused_by_its_line(tmp_path, lines, message):
    path = tmp_path / "table"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read_locuslab_tsv(str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\n1\t2\n", "has no column idx, label, predict, radius, correct; its first line must have"),
        (HEADER.replace("\t", ",").encode(), "has no column idx"),
        (f"{HEADER}\tidx\n{FIRST}\t0\n".encode(), "has no column idx"),  # which of the two?
        (b"", "has no column idx"),
        (b"\x80\x02}q\x00", "it is no text"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(UserError, match=f"other is not a locuslab table: .*{message}"):
        read_locuslab_tsv(str(tmp_path / "other"))


def test_a_table_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot read .*absent.tsv: there is no such file"):
        read_locuslab_tsv(str(tmp_path / "absent.tsv"))
