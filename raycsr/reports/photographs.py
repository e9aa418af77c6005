"""The pictures behind certificates: read again from the run's data source, as the base classifier saw them."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from raycsr.data.decode import decode_images
from raycsr.data.sources import open_source, stored_options
from raycsr.errors import DamagedFile, UserError
from raycsr.models.spec import Preprocessing
from raycsr.results import Run
from raycsr.store import READERS

_OF_IMAGE = ("image", "image_sha", "error")
_LONGEST = 160  # px of a picture's longer side in a page


def read_pictures(run: Run, certificates: pd.DataFrame) -> list[NDArray[np.uint8] | str]:
    """Reads the images of some certificates from where the run's manifest says that they are.

    An image is shown only where its pixels are those that were sampled: another image of the same name is not.

    Args:
        run: Run whose certificates they are.
        certificates: Rows with image_id and part (which votes part they come from), such as
            `raycsr.certification.costliest_images` returns of what `Run.certificates` read.

    Returns:
        For each its pixels, uint8 (H, W, 3), after resize and crop; or one line that says why there are none.

    Raises:
        UserError: where the source as a whole cannot be read.
    """
    manifest = run.manifest()
    ids = certificates["image_id"].tolist()
    try:
        how = manifest["preprocessing"]
        preprocessing = Preprocessing(**{**how, "input_size": tuple(how["input_size"])})
        encoded = open_source(stored_options(manifest["config"]["data"])).read(ids)
    except UserError:
        raise
    except Exception as error:  # of a file system, a library or a manifest: the source is away, whatever the words
        reason = " ".join(str(error).split())
        raise UserError(f"the data of run {run.run_id} cannot be read: {type(error).__name__}: {reason}") from error
    decoded = decode_images(encoded, preprocessing)
    sampled = _image_shas(run, sorted(set(certificates["part"])))
    shown: list[NDArray[np.uint8] | str] = []
    for image_id, image, sha, problem in zip(ids, *(decoded[name] for name in _OF_IMAGE), strict=True):
        if problem is None and sha != sampled.get(image_id):
            problem = "its pixels are not those that were sampled"
        shown.append(image if problem is None else problem)
    return shown


def small_png(image: NDArray[np.uint8], longest: int = _LONGEST) -> bytes:
    """Pixels (H, W, 3) as a PNG of so many px at most on its longer side."""
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((longest, longest))
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _image_shas(run: Run, parts: list[str]) -> dict[str, str]:
    """image_id -> digest of the pixels that were sampled, of some votes parts; those that cannot be read have none."""

    def read(part: str) -> list[dict]:
        try:
            return run.store.read_table(f"votes/{part}", ["image_id", "image_sha"]).to_pylist()
        except DamagedFile:
            return []

    with ThreadPoolExecutor(READERS) as pool:
        return {row["image_id"]: row["image_sha"] for rows in pool.map(read, parts) for row in rows}
