"""Other libraries' decoders, each opened as well as it can be for a crop, and whether its pixels are Pillow's.

A decoder is a function from a file's bytes to `(height, width, cut)`; `cut(top, left, height, width)` gives the pixels
of that crop (H, W, 3). Some decode the crop alone, most the whole image; one decodes at another scale.
"""

import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

Cut = Callable[[int, int, int, int], np.ndarray]
Opened = tuple[int, int, Cut]
Decoder = Callable[[np.ndarray], Opened]


def of_whole(pixels: np.ndarray) -> Opened:
    """What decodes whole images cuts them."""
    return *pixels.shape[:2], lambda top, left, height, width: pixels[top : top + height, left : left + width]


def pillow() -> Decoder:
    return lambda data: of_whole(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def simplejpeg_whole() -> Decoder:
    import simplejpeg

    return lambda data: of_whole(simplejpeg.decode_jpeg(data))


def simplejpeg_scaled(side: int = 224) -> Decoder:
    """The smallest of libjpeg-turbo's scales, 1/8 to 8/8, at which the crop has `side` pixels: other pixels."""
    import simplejpeg

    def opened(data: np.ndarray) -> Opened:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)

        def cut(top: int, left: int, rows: int, columns: int) -> np.ndarray:
            share = min(1.0, max(side / rows, side / columns))
            pixels = simplejpeg.decode_jpeg(data, min_height=int(height * share), min_width=int(width * share))
            down, across = pixels.shape[0] / height, pixels.shape[1] / width
            return pixels[
                int(top * down) : round((top + rows) * down), int(left * across) : round((left + columns) * across)
            ]

        return height, width, cut

    return opened


def torchvision_whole() -> Decoder:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    return lambda data: of_whole(decode_image(torch.from_numpy(data), ImageReadMode.RGB).permute(1, 2, 0).numpy())


def torchcodec_whole() -> Decoder:
    import torch
    from torchcodec.decoders import decode_image

    return lambda data: of_whole(decode_image(torch.from_numpy(data)).permute(1, 2, 0).numpy())


def opencv_whole() -> Decoder:
    import cv2

    cv2.setNumThreads(1)
    return lambda data: of_whole(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def kornia_whole() -> Decoder:
    from kornia_rs.io import ImageDecoder

    decoder = ImageDecoder()
    return lambda data: of_whole(np.asarray(decoder.decode(data.tobytes())))


def spdl_whole() -> Decoder:
    import spdl.io

    spdl.io.demux_image(b"")  # loads FFmpeg's libraries, which are Debian's or nobody's
    return lambda data: of_whole(spdl.io.to_numpy(spdl.io.load_image(data.tobytes())))


def pyvips_cropped() -> Decoder:
    """Rows are decoded down to the crop's last."""
    import os

    os.environ["VIPS_CONCURRENCY"] = "1"
    import pyvips

    pyvips.cache_set_max(0)

    def opened(data: np.ndarray) -> Opened:
        image = pyvips.Image.new_from_buffer(data.tobytes(), "", access="sequential")
        return image.height, image.width, lambda top, left, rows, columns: image.crop(left, top, columns, rows).numpy()

    return opened


def nvimgcodec_region() -> Decoder:
    """nvImageCodec decoding a region on the CPU."""
    from nvidia import nvimgcodec

    one_thread = {"device_id": nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, "max_num_cpu_threads": 1}
    decoder = nvimgcodec.Decoder(backends=[nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)], **one_thread)

    def opened(data: np.ndarray) -> Opened:
        stream = nvimgcodec.CodeStream(data)

        def cut(top: int, left: int, rows: int, columns: int) -> np.ndarray:
            region = nvimgcodec.Region(top, left, top + rows, left + columns)
            return np.asarray(decoder.decode(stream.get_sub_code_stream(region=region)).cpu())

        return stream.height, stream.width, cut

    return opened


DECODERS: dict[str, Callable[[], Decoder]] = {
    "simplejpeg + torch, hand-tuned": simplejpeg_whole, "nvImageCodec, region decode": nvimgcodec_region,
    "torchcodec": torchcodec_whole, "OpenCV": opencv_whole, "kornia-rs": kornia_whole, "pyvips, crop": pyvips_cropped,
    "SPDL": spdl_whole, "simplejpeg, DCT-scaled": simplejpeg_scaled,
}  # fmt: skip
"""By the name of the reader that resizes what each gives with torch's uint8 kernel."""
OF_ANY_FORMAT = ("torchcodec", "OpenCV", "pyvips, crop")


def pixels_of(decoder: Decoder, files: Iterable[np.ndarray], resized: Callable[[np.ndarray], np.ndarray]) -> str:
    """Say how crops compare with Pillow's: as decoded, or resized where they have another size."""
    largest, means, scaled, rng = 0, [], False, np.random.default_rng(0)
    for data in files:
        height, width, _ = decoder(data)
        (top, low), (left, right) = np.sort(rng.integers(0, [[height], [width]], (2, 2))).tolist()
        box = (top, left, low - top + 1, right - left + 1)
        found, wanted = decoder(data)[2](*box), pillow()(data)[2](*box)
        if found.shape != wanted.shape:
            found, wanted, scaled = resized(found), resized(wanted), True
        apart = np.abs(found.astype(int) - wanted)
        largest, means = max(largest, int(apart.max())), [*means, float(apart.mean())]
    if not largest:
        return "Pillow's pixels"
    how = " after resizing" if scaled else ""
    return f"other pixels: {np.mean(means):.2f} levels apart on average{how}, {largest} at most"
