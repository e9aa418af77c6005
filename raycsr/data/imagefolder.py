"""The source imagefolder: image files laid out path/<class>/<image>."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from raycsr.data.files import READ_THREADS, instead, natural, read_image, walk
from raycsr.data.images import EXTENSIONS, PICTURES, Found, Image, Images, Room, extension, frame
from raycsr.data.kinds import SourceKind
from raycsr.data.options import DataOptions
from raycsr.errors import UserError
from raycsr.store import AccessDenied, File, FileMissing, Store


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


def list_flat_folder(options: DataOptions) -> Found:
    """All images in natural order, wherever below the folder they are: nobody has sorted them into classes."""
    root = str(options.path)
    files: list[File] = []
    left_out: Counter[str] = Counter()
    if Store(root).exists():
        raise UserError(f"{root!r} is a file: give the folder of the images")
    for file in walk(root, left_out):
        if extension(file.path) in EXTENSIONS:
            files.append(file)
        elif not file.path.endswith("/"):
            left_out[extension(file.path)] += 1
    files.sort(key=lambda file: natural(file.path))
    images = frame([file.path for file in files], -1, [file.size for file in files], [file.version for file in files])
    return Found(images, None, left_out)


def read_imagefolder(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """Each image's file, or why it cannot be read."""
    root = Store(str(options.path))

    def read_one(image_id: str) -> Image:
        try:
            return read_image(root, image_id, room)
        except (FileMissing, AccessDenied) as error:
            return instead(error, root)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read_one, image_ids))


IMAGEFOLDER = SourceKind(
    list_imagefolder,
    read_imagefolder,
    f"a folder laid out <class>/<image>{PICTURES}",
    unlabelled=list_flat_folder,
)
