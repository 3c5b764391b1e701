"""`python -m vitpipe.stages.images.native.prebuild`: compile the extension where compiler and headers are."""

import logging

from vitpipe.stages.images.native.compilation import DO, NotBuilt, build


def main() -> None:
    """Build the extension if missing. Without compiler or headers say so and go on: images are decoded whole."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        logging.info("the reader's extension is %s", build())
    except NotBuilt as error:
        logging.warning("the reader's extension was not built: %s. Images will be decoded whole. %s", error, DO)


if __name__ == "__main__":
    main()
