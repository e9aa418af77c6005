"""The source imagefolder: image files laid out path/<class>/<image>."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs as pafs

from raycsr.data.files import READ_THREADS, File, natural, one_image_failed, open_filesystem, retried, walk
from raycsr.data.images import EXTENSIONS, LATER, MAX_BYTES, Found, Image, Images, Room, extension, frame, too_large
from raycsr.data.options import DataOptions
from raycsr.errors import UserError


def list_imagefolder(options: DataOptions) -> Found:
    """All images in natural order, and the names of the classes: those of the folders."""
    root = str(options.path)
    folders: set[str] = set()
    files: list[File] = []
    left_out: Counter[str] = Counter()
    for file in walk(root, left_out):
        folder, slash, name = file.path.partition("/")
        if "/" in name:
            raise UserError(
                f"{root!r} has folders inside its class folders ({file.path!r}): "
                "path must name the folder whose sub-folders are the classes"
            )
        is_image = extension(file.path) in EXTENSIONS
        if slash:
            folders.add(folder)  # an empty one too: it has its index all the same
        if slash and is_image:
            files.append(file)
        elif name or not slash:  # a file, not a folder
            left_out["images beside the class folders" if is_image else extension(file.path)] += 1
    names = sorted(folders)
    label = {name: index for index, name in enumerate(names)}
    files.sort(key=lambda file: natural(file.path))
    paths = [file.path for file in files]
    labels = [label[path.partition("/")[0]] for path in paths]
    images = frame(paths, labels, [file.size for file in files], [file.version for file in files])
    return Found(images, names, left_out)


def read_imagefolder(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """Each image's file, or why it cannot be read."""
    filesystem, root = open_filesystem(str(options.path))

    def read_one(image_id: str) -> Image:
        try:
            return retried(lambda: read_file(filesystem, f"{root}/{image_id}", room))
        except (FileNotFoundError, PermissionError) as error:
            return one_image_failed(error, filesystem, root)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read_one, image_ids))


def read_file(filesystem: pafs.FileSystem, path: str, room: Room) -> Image:
    """The bytes of an image file, or why they are not read."""
    if room.full:
        return LATER
    with filesystem.open_input_file(path) as file:
        size = file.size()
        if size > MAX_BYTES:
            return too_large(size)
        return file.read(size) if room.take(size) else LATER
