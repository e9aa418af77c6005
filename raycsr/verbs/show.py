"""Showing: a few images beside noisy copies and perturbations of a norm, for who has never seen a radius."""

import warnings

import numpy as np

from raycsr.certification.summary import checked_radii
from raycsr.data.decode import decode_images, rgb_image
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.errors import UserError
from raycsr.models.spec import Preprocessing
from raycsr.reports.document import Block, Column, Document, Paragraph, Section, Table
from raycsr.reports.html import as_html
from raycsr.reports.perturbed import EXPLAINED, Perturbed, gallery, perturbed
from raycsr.reports.text import as_text
from raycsr.smoothing.options import MOST_SIGMA
from raycsr.store import Store

_LARGEST = 224  # px where no size is named


def show(
    *,
    data: DataOptions,
    radius: float,
    sigma: float,
    images: int = 3,
    input_size: int | None = None,
    seed: int = 0,
    out: str = "show",
) -> list[Perturbed]:
    """Shows what a radius and a noise level look like on a few images of one's own.

    Beside each image stand a noisy copy and pictures that differ from it by the radius, on a page without network or
    script; what is printed are their numbers.

    Args:
        data: The images, which need no labels.
        radius: L2 radius to be shown, in [0, 1] pixel units.
        sigma: Noise level to be shown, in [0, 1] pixel units.
        images: Number of images, taken at even steps from the listing.
        input_size: Height and width of the model's input, in pixels, to which images are resized and cropped: the same
            radius is less to be seen in a larger picture. By default 224, or an image's shorter side where that is
            less.
        seed: Seed of the noise and of the perturbations.
        out: Folder for show.html, local or s3://.

    Returns:
        The pictures, in the order of the page.

    Raises:
        UserError: where a number is out of range, or none of the images can be read; a few that cannot are warned of.
    """
    checked_radii(radius)
    if not 0 < sigma <= MOST_SIGMA:
        raise UserError(f"sigma is {sigma:g}; give one above 0, {MOST_SIGMA} at most, in [0, 1] pixel units")
    if images < 1 or (input_size is not None and input_size < 1):
        raise UserError(f"{images} images of {input_size} px cannot be shown; give 1 or more of both")
    store = Store(out)
    store.check_writable()
    source = open_source(data, labelled=bool(data.classes or data.class_names))
    ids = source.list().images["image_id"].to_numpy()
    chosen = ids[np.unique(np.linspace(0, len(ids) - 1, images).astype(int))].tolist()
    blocks: list[Block] = [Paragraph(EXPLAINED)]
    made: list[Perturbed] = []
    rows: list[list[str]] = []
    for name, encoded in zip(chosen, source.read(chosen), strict=True):
        try:
            image = _pixels(name, encoded, input_size)
        except UserError as error:
            if len(chosen) == 1:
                raise
            warnings.warn(str(error), stacklevel=2)
            continue
        found = perturbed(image, name, radius=radius, sigma=sigma, seed=seed)
        blocks.append(gallery(image, name, found))
        made += found
        rows += [[name, f"{image.shape[0]} x {image.shape[1]} px", *one.lines()] for one in found]
    if not made:
        raise UserError(f"none of {len(chosen)} images can be shown; give others, or more of them by --images")
    columns = [Column(title) for title in ("image", "size", "picture", "how far", "largest change", "changed")]
    title = f"A radius of {radius:g}, and noise at σ = {sigma:g}"
    store.write("show.html", as_html(Document(title, [Section("Side by side", blocks)])).encode())
    print(as_text(Document(title, [Table(columns, rows)])))
    print(f"\nwrote {store.location}/show.html")
    return made


def _pixels(name: str, encoded: bytes | np.ndarray | Exception, input_size: int | None) -> np.ndarray:
    """One image at the size of the model's input, uint8 (H, W, 3)."""
    try:
        side = min(_LARGEST, *rgb_image(encoded).size) if input_size is None else input_size
    except Exception as error:  # whatever a decoder raises
        raise UserError(f"image {name!r} cannot be shown: {type(error).__name__}: {error}") from None
    decoded = decode_images([encoded], Preprocessing((side, side), "bicubic", 1.0, "center"))
    if decoded["error"][0] is not None:
        raise UserError(f"image {name!r} cannot be shown: {decoded['error'][0]}")
    return decoded["image"][0]
