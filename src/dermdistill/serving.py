"""The deployed model for MLflow: photographs in, the answers of :class:`dermdistill.api.Detector` out.

    mlflow models serve --env-manager local --model-uri models:/dermdistill@champion --port 5001

MLflow runs this file when it loads the model ("models from code"), so nothing is pickled. It needs this package beside
MLflow. A request has one column, ``image``, of files in base64; the answers are the lines of ``predict --json``.
"""

import mlflow
from mlflow.pyfunc.model import PythonModel

from dermdistill.api import Detector


class Photographs(PythonModel):
    """``predict`` takes a table with the column ``image``, the bytes of files, and gives an answer as dict for each."""

    # No types here: MLflow would take them for the schema of a request.
    def load_context(self, context):  # type: ignore[no-untyped-def]
        self.detector = Detector.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return [answer.to_dict() for answer in self.detector.stream(model_input["image"])]


mlflow.models.set_model(Photographs())
