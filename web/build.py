"""Put the page, ONNX Runtime's wasm and the deployed model into one folder that any static host can serve.

    python -m web.build [FOLDER]    # default runtime/web; a second; `make web-dist` fetches node_modules first

Nothing is compiled or bundled: files are copied as they are. Made here are ``ort.wasm.bin`` (the wasm in gzip, so that
it is small on hosts that do not compress), ``version.js`` (the hash of every file, which page and service worker
check) and ``_headers`` (for hosts that read such a file). Needs the standard library only.
"""

import gzip
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

WEB = Path(__file__).resolve().parent
DEPLOYED = WEB.parent / "models/deploy"
PAGE = (
    "index.html", "style.css", "manifest.webmanifest", "icon.svg", "icon.png",
    "app.js", "detector.js", "judge.js", "occlusion.js", "picture.js", "pixels.js", "words.js",
)  # fmt: skip
RUNTIME = WEB / "node_modules/onnxruntime-web/dist"


def build(folder: Path, deployed: Path = DEPLOYED) -> Path:
    """Write the page with the model in ``deployed`` (as stage ``ship`` leaves it) to ``folder``, replacing that.

    Raises:
        SystemExit: node_modules or the model is missing, or ``folder`` holds something else; the message says what
            to do. What was there is then as it was.
    """
    wasm, model = RUNTIME / "ort-wasm-simd-threaded.wasm", deployed / "student.int8.onnx"
    for path, remedy in ((wasm, "npm ci --prefix web"), (model, "dvc repro ship")):
        if not path.exists():
            sys.exit(f"error: {path} does not exist; run `{remedy}`")
    if folder.exists() and not (folder / "version.js").is_file() and (folder.is_file() or any(folder.iterdir())):
        sys.exit(f"error: {folder} holds something else than an earlier page; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        _fill(Path(temporary) / "page", wasm, model)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(temporary) / "page").rename(folder)
    return folder


def _fill(folder: Path, wasm: Path, model: Path) -> None:
    folder.mkdir()
    example = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["example"]["pixels"]
    sources = [*(WEB / name for name in PAGE), RUNTIME / "ort.wasm.bundle.min.mjs"]
    sources += [model, model.with_suffix(".json"), model.parent / example]
    for path in sources:
        shutil.copy(path, folder)
    (folder / "ort.wasm.bin").write_bytes(gzip.compress(wasm.read_bytes(), mtime=0))
    (folder / "version.js").write_text(_version(folder, model.name), encoding="utf-8")
    shutil.copy(WEB / "sw.js", folder)
    (folder / "_headers").write_text("/*\n" + "".join(f"  {k}: {v}\n" for k, v in headers().items()), encoding="utf-8")


def headers() -> dict[str, str]:
    """What a host should send with every file: the page's own policy, and isolation, which allows threads."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    return {
        "Content-Security-Policy": f"{policy[1]}; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }


def _version(folder: Path, model: str) -> str:
    """``version.js``: a release is named by its model's hash, then by that of all files."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    whole = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    digest = str(files[model]["sha256"])
    release = {"version": f"{digest[:12]}-{whole[:12]}", "model": digest, "files": files}
    return f"self.RELEASE = {json.dumps(release, indent=1)};\n"


if __name__ == "__main__":
    folder = build(Path(sys.argv[1] if len(sys.argv) > 1 else "runtime/web"))
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB for any static host")
