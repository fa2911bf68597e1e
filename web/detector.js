// The deployed model in ONNX Runtime's plain wasm: what `deployment/runtime.py` is in Python.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { readRules } from "./judge.js";
import { decode } from "./picture.js";
import { fit } from "./pixels.js";

const MODEL = "student.int8.onnx";
const RUNTIME = "ort.wasm.bin"; // gzip, whatever the host does
const TOLERANCE = 0.05; // of the example's probabilities: processors round 8-bit layers differently, by hundredths

// What keeps the page from judging; `code` names the sentence in words.js.
export class LoadError extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

// Loads runtime and model, named in `release` (version.js), and proves them on the example that Python answered.
// `progress(share)` hears which share of the bytes has come, 0 to 1.
export async function loadDetector(release, progress = () => {}) {
  const text = await download("student.int8.json", release, () => {}, "no-cache");
  const description = JSON.parse(new TextDecoder().decode(text));
  // First of all, since rules that another model brings could be unknown to this page.
  if (description.sha256 !== release.model) throw new LoadError("stale");
  const whole = release.files[MODEL].bytes + release.files[RUNTIME].bytes;
  let received = 0;
  const count = (bytes) => progress((received += bytes) / whole);
  const [model, wasm] = await Promise.all([
    download(MODEL, release, count, "no-cache"),
    download(RUNTIME, release, count, "no-cache").then(gunzip),
  ]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: threads() });
  ort.env.logLevel = "error";
  const detector = await openModel(model, description);
  await prove(detector, description.example);
  return detector;
}

// Bytes of an ONNX file and its JSON → a detector. Threads and wasm have been set.
export async function openModel(model, description) {
  const rules = readRules(description);
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 4 });
  const { height, width } = description.preprocessing;
  const { input, output } = description;
  // RGB bytes of one image or several → Float32Array of seven probabilities each.
  const predict = async (images) => {
    const count = images.length / (height * width * 3);
    const { [output.name]: answer } = await session.run({
      [input.name]: new ort.Tensor("uint8", images, [count, height, width, 3]),
    });
    return answer.data;
  };
  return { description, rules, height, width, predict, threads: ort.env.wasm.numThreads, close: () => session.release() };
}

function threads() {
  return self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, 4) : 1;
}

// The whole way, from a file through the browser's decoder and canvas to probabilities, on a drawing.
async function prove({ predict, height, width }, example) {
  const blob = await (await fetch(example.pixels)).blob();
  const found = await predict(fit(await decode(blob), height, width));
  if (!example.probabilities.every((p, k) => Math.abs(p - found[k]) <= TOLERANCE)) throw new LoadError("differs");
}

// Bytes of a file of this release; reports each piece as it comes.
async function download(name, release, received, cache) {
  let response;
  try {
    response = await fetch(name, { cache });
  } catch {
    throw new LoadError("unreachable");
  }
  if (!response.ok) throw new LoadError("unreachable");
  const reader = response.body.getReader();
  const pieces = [];
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      pieces.push(piece.value);
      received(piece.value.length);
    }
  } catch {
    throw new LoadError("unreachable");
  }
  const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
  if (!(await isWhole(bytes, release.files[name]))) throw new LoadError("stale");
  return bytes;
}

// Plain http has no crypto.subtle; there the length and the example have to do.
async function isWhole(bytes, expected) {
  if (bytes.length !== expected.bytes) return false;
  if (!self.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === expected.sha256;
}

async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
