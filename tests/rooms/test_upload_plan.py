"""How the media of an item travel."""

import pytest

from pipeline.errors import ItemError
from pipeline.limits import Limits
from pipeline.upload.plan import check_storage, contents, inline_request_bytes, travel
from tests.support.builders import item, media

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("via", "sizes", "expected"),
    [
        ("auto", [1000], "inline"),
        ("auto", [4 * MB], "inline"),
        ("auto", [4 * MB + 1], "files"),
        ("auto", [3 * MB, 3 * MB], "files"),
        ("inline", [14 * MB], "inline"),
        ("inline", [15 * MB], "files"),  # 15 MiB is exactly 20 MiB in base64: no room for the rest of the body
        ("files", [1], "files"),
        ("files", [], "inline"),
    ],
)
def test_travel(via: str, sizes: list[int], expected: str) -> None:
    """Media go inline below the threshold and where the whole body fits, else through the File API."""
    one = item("a", *(media(f"{n}.jpg", size_bytes=size) for n, size in enumerate(sizes)))
    if not sizes:
        one = item("a", media=())
    assert travel(one, via=via, inline_max_bytes=4 * MB, limits=Limits()) == expected  # type: ignore[arg-type]


def test_inline_size_is_an_upper_bound() -> None:
    """The estimate is never smaller than the body that is built, whatever the texts hold."""
    from pipeline.generation.request import body
    from tests.support.builders import ready

    hostile = '"\\\n\x01\u2028' * 500
    one = item("a", *(media(f"{n}.jpg", size_bytes=1000) for n in range(50)), prompt=hostile, system=hostile)
    data = {m.content: b"A" * m.size_bytes for m in one.media}
    assert len(body(ready(one), data, Limits())) <= inline_request_bytes(one)


def test_contents_are_told_apart_by_bytes_and_type() -> None:
    """The same bytes twice in one item are one file of the File API."""
    one = item("a", media("a.jpg"), media("b.jpg"), media("a.jpg"))
    assert list(contents(one)) == [one.media[0].content, one.media[1].content]


def test_an_item_larger_than_the_storage_is_refused() -> None:
    """An item that can never be stored fails at once instead of waiting for ever."""
    with pytest.raises(ItemError) as caught:
        check_storage(item("a", media("big.mp4", size_bytes=11)), Limits(project_storage_bytes=10))
    assert caught.value.failure.kind == "request_too_large"
    check_storage(
        item("a", media("a.mp4", size_bytes=6), media("a.mp4", size_bytes=6)), Limits(project_storage_bytes=10)
    )
