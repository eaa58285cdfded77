"""Reading and decoding ahead of the network, in threads, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image

from cnnvis_ray.errors import ImageRejectedError
from cnnvis_ray.images.decoding import decode
from cnnvis_ray.images.sources import Reader

T = TypeVar("T")


def prepared(
    reader: Reader,
    items: Iterable[tuple[int, str]],
    prepare: Callable[[Image.Image], T],
    max_pixels: int,
    threads: int,
    ahead: int,
) -> Generator[tuple[int, str, T | ImageRejectedError], None, None]:
    """Fetch, decode and prepare images in threads; yield slot, key and result in order.

    Args:
        reader: an open source, safe to use from threads.
        items: slot and key of each image; taken only as far as the look-ahead goes.
        prepare: what a thread makes of a decoded image; an `ImageRejectedError` that it raises
            is yielded like one of the decoder.
        max_pixels: as in `decode`.
        threads: how many images are worked on at once.
        ahead: how many images are in memory at most, the one last yielded included.

    Raises:
        Exception: whatever is not a fault of one image, at the position of that image.
    """

    def work(key: str) -> T | ImageRejectedError:
        try:
            return prepare(decode(reader.fetch(key), max_pixels))
        except ImageRejectedError as reject:
            return reject.with_traceback(None)

    rest = iter(items)
    pending: deque[tuple[int, str, Future[T | ImageRejectedError]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        while True:
            for slot, key in islice(rest, ahead - len(pending)):
                pending.append((slot, key, pool.submit(work, key)))
            if not pending:
                return
            slot, key, future = pending.popleft()
            outcome = future.result()
            del future
            yield slot, key, outcome
            del outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
