"""One module per DVC stage: ``python -m stages.NAME`` reads params, calls the library once, writes.

The source tree beside this folder goes first on the path, so that a stage run in an experiment's
own copy of the repository (``dvc exp run --temp`` or ``--queue``) uses that copy's code and not
the code of an editable install elsewhere.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
