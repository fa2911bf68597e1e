"""A drawn lesion beside the deployed file, with its probabilities: the first check for another runtime.

Written as a photograph and as the pixels it becomes, so that preparation and network can be checked one by one.
No image of the data set leaves here.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermdistill.core.files import atomic
from dermdistill.deployment.runtime import Detector
from dermdistill.ingest import pixels
from dermdistill.phantom import phantom


def write(model: Path, folder: Path) -> dict[str, Any]:
    """``example.jpg`` and ``example.png`` into ``folder``, where the file ``model`` will stand; what to say of them."""
    detector, photograph, prepared = Detector(model), folder / "example.jpg", folder / "example.png"
    content = phantom.jpeg(phantom.draw(np.random.default_rng(0), "mel", 3 * detector.height, 4 * detector.height))
    image = pixels.read(content, photograph.name, detector.height, detector.width)
    with atomic(photograph) as path:
        path.write_bytes(content)
    with atomic(prepared) as path:
        Image.fromarray(image).save(path)
    return {
        "photograph": photograph.name,
        "pixels": prepared.name,
        "probabilities": [round(float(p), 6) for p in detector.predict(image[None])[0]],
        "in_words": (
            f"A drawn lesion. {photograph.name}, prepared as above, becomes {prepared.name}, up to how a JPEG is "
            f"decoded; to the pixels of {prepared.name} the file answers with these probabilities. Another "
            "processor or runtime rounds 8-bit layers in another way, and may stray by some hundredths."
        ),
    }
