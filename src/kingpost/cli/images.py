"""`kingpost images`: folders of this machine that stand for container images, for one platform."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kingpost.cli.groups import ListingGroup
from kingpost.cli.session import Session, with_json

if TYPE_CHECKING:
    from kingpost.build.images import ImageTable


@click.group(cls=ListingGroup)
def images() -> None:
    """Map base images to folders that are installed here.

    The process engine runs no images. A mapped folder, such as a Python environment in which
    vLLM is installed, stands for one: its programs and packages are there for each Truss that
    names the image as its base_image. Without a tag, IMAGE stands for each of its tags.
    """


def _with_table(command: Callable[..., None]) -> Callable[..., Any]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The platform's data folder, as for `kingpost up`.",
    )(with_json(command))


@images.command("list")
@_with_table
def list_images(session: Session, data_dir: Path | None) -> None:
    """List mapped images."""
    rows = sorted(_table(data_dir).all().items())
    data = [{"image": image, "prefix": prefix} for image, prefix in rows]
    empty = "No images are mapped. Map one: kingpost images map IMAGE PREFIX"
    session.out.result(data, lambda: session.out.table(("IMAGE", "PREFIX"), rows, empty))


@images.command("map")
@click.argument("image", metavar="IMAGE")
@click.argument("prefix", metavar="PREFIX", type=click.Path(path_type=Path))
@_with_table
def map_image(session: Session, image: str, prefix: Path, data_dir: Path | None) -> None:
    """Let the folder PREFIX, which has a bin folder, stand for IMAGE."""
    _table(data_dir).map(image, prefix)
    session.out.result(
        {"image": image, "prefix": str(prefix)},
        lambda: session.out.line(f"From the next push on, {prefix} stands for {image}."),
    )


@images.command("unmap")
@click.argument("image", metavar="IMAGE")
@_with_table
def unmap_image(session: Session, image: str, data_dir: Path | None) -> None:
    """Remove the mapping of IMAGE; what was built with it stays as it is."""
    _table(data_dir).unmap(image)
    session.out.result({"image": image}, lambda: session.out.line(f"Unmapped {image}."))


def _table(data_dir: Path | None) -> ImageTable:
    from kingpost.client.remotes import data_folder
    from kingpost.settings import DataFolder
    from kingpost.supervisor.tools import image_table

    data = DataFolder(data_dir.absolute()) if data_dir else data_folder(os.environ)
    return image_table(data)
