"""A ``python`` whose stages start at once: forks of a process that has imported PyTorch and the like already.

Importing these takes longer than most stages of the phantom pipeline take to run. :func:`forking_python` starts such a
process and gives a folder for the front of ``PATH`` whose ``python`` hands ``python -m stages.NAME …`` over to it, with
the caller's folder, environment and standard streams, and runs anything else as the real Python does. Only third-party
libraries are imported beforehand: stages and package are those that the caller would import. That ordinary processes
end with the same bits is a test (``make test-all``).
"""

import array
import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("captum", "lightning_fabric", "matplotlib.pyplot", "mlflow", "onnx", "onnxruntime", "pandas", "pydantic")
LIBRARIES += ("scipy.stats", "sklearn.metrics", "sklearn.ensemble", "timm", "torchvision", "yaml")

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
if sys.argv[1:2] != ["-m"] or not sys.argv[2].startswith("stages."):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
call = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
streams = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
server.sendmsg([len(call).to_bytes(8, "big")], [streams])
server.sendall(call)
sys.exit(int(server.makefile().read() or 1))
"""


@contextlib.contextmanager
def forking_python() -> Iterator[Path]:
    """The folder with that ``python``, until the context is left."""
    with tempfile.TemporaryDirectory() as folder:
        address, client = f"{folder}/socket", Path(folder) / "bin/python"
        client.parent.mkdir()
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield client.parent
        finally:
            server.terminate()
            server.wait()


def serve(address: str) -> None:
    """Fork for every call, one after the other as DVC makes them, and answer with the exit status."""
    for name in LIBRARIES:
        __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        caller, _ = listener.accept()
        head, control, _, _ = caller.recvmsg(8, socket.CMSG_LEN(3 * array.array("i").itemsize))
        streams = array.array("i", control[0][2])
        arguments, folder, environment = json.loads(caller.makefile("rb").read(int.from_bytes(head, "big")))
        if (child := os.fork()) == 0:
            listener.close()
            caller.close()
            run(arguments, folder, environment, streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        caller.sendall(str(os.waitstatus_to_exitcode(status) & 255).encode())
        caller.close()


def run(arguments: list[str], folder: str, environment: dict[str, str], streams: "array.array[int]") -> None:
    """In the child: become ``python -m ARGUMENTS`` and end."""
    status: int | str | None = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:], sys.path[0] = arguments, folder
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status or 0))


if __name__ == "__main__":
    serve(sys.argv[1])
