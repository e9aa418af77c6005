import math

import pandas as pd
import pytest

from raycsr import CostMatrix, UserError, summarize
from raycsr.results import format_summary, markdown_table, read_locuslab_tsv

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
    text = format_summary(summary.assign(run="r", costs="c"))
    assert "1.000 [0.207, 1.000]" in text  # Wilson for 1 of 1
    assert text.splitlines()[2].count(" - ") == 3  # rob_cs, rob_cost, worst cost
