"""The options that say which images to use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataOptions:
    """The images to use. A subset is taken in the order classes, skip, limit.

    Attributes:
        source: One of digits, cifar10, imagefolder, csv, parquet, webdataset; or what an installed package adds.
        path: Folder or file of the images, local or s3://bucket/prefix. For cifar10 it is the local folder in which
            torchvision keeps the data, for csv the file whose rows are images.
        split: Split of the data, such as train or test. These sources have splits: digits; cifar10; Parquet whose
            files are named <split>-* or <split>.parquet, or lie in folders <split>; and a csv with a split column, of
            which it is a value. By default it is test for sampling, and train for training and tuning. An imagefolder
            or a webdataset has no splits: its path names the folder of classes, or of tars.
        skip: Step through the sorted listing: 10 takes every tenth image.
        limit: Largest number of images to take; by default all.
        classes: Classes to take images of, by index or by name; by default all.
        class_names: Names of the classes in the order of the labels, or a text file with one name a line; by
            default the names that the source gives. Where all of the source's own names are among them, labels are
            matched by name, so that the order may differ, and a folder may hold ten of ImageNet's classes only. Other
            names are matched by position, which the plan says.
        download: Whether torchvision downloads CIFAR-10 where it is missing.
        image_roots: Folders in which the paths of a csv begin, local or s3://; each image is in one of them. A
            relative folder is below the folder of the csv, which is also the default.
        image_column: Column of a csv or Parquet that holds the images: paths, with or without extension, or
            encoded images. By default it is the column with a common name (path, file_name, image_id, ...); in
            Parquet `image`.
        label_column: Column of a csv or Parquet that holds the labels: indices from 0, or names, which become
            classes in sorted order. By default it is the column with a common name (label, class, dx, ...); in
            Parquet `label`.
        split_column: Column of a csv that holds the split. By default it is the column with a common name (split,
            subset, partition), where there is one; `none` takes all rows.
        group_column: Column of a csv or Parquet that names the group of an image, such as its patient: images of a
            group are held out together, and confidence intervals treat groups as the independent units. By default it
            is the column with a common name (group, patient_id, lesion_id, ...), where there is one; `none` treats
            images as independent.
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
