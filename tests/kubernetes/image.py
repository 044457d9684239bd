"""The container image that `make image` has built."""

from pathlib import Path

import pytest

from flanneld_py import __version__

IMAGE = Path(__file__).parents[2] / "dist" / f"flanneld-py_{__version__}_image.tar"
NAME = f"flanneld-py:{__version__}"

needs_image = pytest.mark.skipif(
    not IMAGE.exists(), reason=f"no {IMAGE.name} in dist: make image builds it (needs buildah and mmdebstrap)"
)
