"""The options that say what to certify."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOptions:
    """What to certify. The subset is taken in the order classes, skip, limit.

    Attributes:
        source: One of digits, cifar10, imagefolder, csv, parquet, webdataset; or what an installed package adds.
        path: Folder or file, local or s3://bucket/prefix; for cifar10 the local folder that torchvision
            keeps it in; for csv the file whose rows are images.
        split: Part of the data, where the source has parts: digits, cifar10, Parquet folders with files named
            <split>-* or <split>.parquet, or in folders <split>, and a csv with a split column, of which it is a value.
            By default test for sampling, and train for training and tuning. An imagefolder or a webdataset has none:
            its path names the folder of classes, or of tars.
        skip: Take every skip-th image of the sorted listing.
        limit: Take at most this many images.
        classes: Take only these classes, by index or by name.
        class_names: The names of the classes in the order of the labels, or a text file with one a line; where
            absent, the names that the source itself gives. Where they hold all of the source's own names, labels
            follow them: in another order, or more of them (a folder of ten of ImageNet's classes, say). Other
            names are matched by position, which the plan says.
        download: Let torchvision download CIFAR-10 where it is missing.
        image_roots: Folders that a csv's paths begin in, local or s3://; each image is in one of them. A
            relative one is below the folder of the csv, which is also the default.
        image_column: Column of a csv or Parquet that holds the images: paths, with or without extension, or
            encoded images. By default the one that has a common name (path, file_name, image_id, ...); in
            Parquet `image`.
        label_column: Column of a csv or Parquet that holds the labels: indices from 0, or names, which become
            classes in sorted order. By default the one that has a common name (label, class, dx, ...); in
            Parquet `label`.
        split_column: Column of a csv that holds the split. By default the one that has a common name (split,
            subset, partition), where there is one; `none` for all rows.
        group_column: Column of a csv or Parquet whose images belong together, such as those of one patient:
            they are held out together, and intervals are over groups. By default the one that has a common
            name (group, patient_id, lesion_id, ...), where there is one; `none` where images are independent.
    """

    source: str
    path: str | None = None
    split: str | None = None
    skip: int = 1
    limit: int | None = None
    classes: list[int | str] | None = None
    class_names: list[str] | str | None = None
    download: bool = False
    image_roots: list[str] | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
