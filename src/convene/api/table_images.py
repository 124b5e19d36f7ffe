"""The routes of pictures, a part of the table of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api import shapes_images
from convene.api.query import Parameter
from convene.api.routes import Route

if TYPE_CHECKING:
    from convene.api.table import Endpoints


def image_routes(to: Endpoints) -> tuple[Route, ...]:
    """Return the routes of pictures."""
    return (
        *(
            Route(
                method="POST",
                path=path,
                endpoint=endpoint,
                summary=f"Draw pictures, in {whose} form",
                takes=shapes_images.ImageBody,
                gives=shapes_images.ImageReply,
                frames=shapes_images.PictureEvent,
                repeatable=True,
                tag="Images",
            )
            for path, endpoint, whose in (
                ("/v1/images/generations", to.make_images, "OpenAI's"),
                ("/v1/image/generate", to.make_image, "ASI:One's"),
            )
        ),
        *(
            Route(
                method="POST",
                path=path,
                endpoint=endpoint,
                summary=summary,
                takes=takes,
                form=True,
                gives=shapes_images.ImageReply,
                frames=shapes_images.PictureEvent,
                repeatable=True,
                tag="Images",
            )
            for path, endpoint, takes, summary in (
                ("/v1/images/edits", to.edit_images, shapes_images.ImageEditBody, "Change pictures by a prompt"),
                ("/v1/images/variations", to.vary_images, shapes_images.ImageVariationBody, "Draw a picture anew"),
            )
        ),
        Route(
            method="GET",
            path="/v1/images/files/{file}",
            endpoint=to.show_image,
            summary="Show a picture by the link that a request for pictures has given",
            query=(
                Parameter(name="expires", about="When the link ends, in Unix seconds.", least=0, most=1 << 40),
                Parameter(name="signature", about="What proves the link."),
            ),
            open=True,
            tag="Images",
        ),
        Route(
            method="DELETE",
            path="/v1/images/files/{file}",
            endpoint=to.delete_image,
            summary="Delete a picture of yours; links to it end",
            gives=shapes_images.ImageDeleted,
            tag="Images",
        ),
    )
