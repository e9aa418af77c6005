"""The options that say what to certify."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOptions:
    """What to certify. The subset is taken in the order classes, skip, limit.

    Attributes:
        source: One of digits, cifar10, imagefolder, parquet, webdataset.
        path: Folder or file, local or s3://bucket/prefix; for cifar10 the local folder that torchvision
            keeps it in.
        split: Part of the data, where the source has parts: digits, cifar10, and Parquet folders with files named
            <split>-* or <split>.parquet, or in folders <split>. By default test for sampling, and train for training
            and tuning. An imagefolder or a webdataset has none: its path names the folder of classes, or of tars.
        skip: Take every skip-th image of the sorted listing.
        limit: Take at most this many images.
        classes: Take only these classes, by index or by name.
        class_names: The names of the classes in the order of the labels, or a text file with one a line; where
            absent, the names that the source itself gives. Where they hold all of the source's own names, labels
            follow them: in another order, or more of them (a folder of ten of ImageNet's classes, say). Other
            names are matched by position, which the plan says.
        download: Let torchvision download CIFAR-10 where it is missing.
    """

    source: str
    path: str | None = None
    split: str | None = None
    skip: int = 1
    limit: int | None = None
    classes: list[int | str] | None = None
    class_names: list[str] | str | None = None
    download: bool = False
