// A file becomes upright sRGB pixels, or a Refusal with the reason. The browser decodes; what it would silently get wrong
// (a truncated JPEG becomes half grey, the first picture of an animation, more pixels than memory) is looked up in the
// file's own structure first.

export const SMALLEST = 16; // pixels of the shorter side, as in ingest/pixels.py
export const LARGEST = 100e6; // pixels: 400 MB once decoded. Python takes twice as many

// A picture that cannot be judged; `code` names the sentence in words.js, `values` fill it in.
export class Refusal extends Error {
  constructor(code, values = {}) {
    super(code);
    this.code = code;
    this.values = values;
  }
}

// Blob → {data: RGBA bytes, width, height, kind}, turned upright by EXIF, colours in sRGB.
export async function decode(blob) {
  const kind = inspect(new Uint8Array(await blob.arrayBuffer()));
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none" });
  } catch {
    throw new Refusal(kind === "heic" ? "heic" : "damaged");
  }
  try {
    checkSize(bitmap.width, bitmap.height); // that of HEIC is unknown until here
    return { ...pixelsOf(bitmap), kind };
  } finally {
    bitmap.close();
  }
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
  if (!context) throw new Refusal("memory");
  context.drawImage(bitmap, 0, 0);
  let data;
  try {
    ({ data } = context.getImageData(0, 0, width, height));
  } catch {
    throw new Refusal("memory");
  } finally {
    canvas.width = canvas.height = 0; // Safari keeps the memory of a canvas until it is collected
  }
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) throw new Refusal("transparent");
  return { data, width, height };
}

// The kind of a file by its bytes, "jpeg", "png", "webp" or "heic"; a Refusal if it is another or cannot be used.
export function inspect(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (start, length) => String.fromCharCode(...bytes.subarray(start, start + length));
  try {
    if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpeg(view);
    if (text(0, 8) === "\x89PNG\r\n\x1a\n") return png(view, text);
    if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") return webp(view, text);
  } catch (error) {
    throw error instanceof RangeError ? new Refusal("damaged") : error; // the file ends where more should stand
  }
  if (text(4, 4) === "ftyp") {
    if (/hei[cxms]|hev[cx]|mif1|msf1|avi[fs]/.test(text(8, 32))) return "heic";
    throw new Refusal("film");
  }
  if (text(0, 4) === "GIF8") throw new Refusal("convert", { format: "GIF" });
  if (text(0, 2) === "BM") throw new Refusal("convert", { format: "BMP" });
  if (["II*\0", "MM\0*"].includes(text(0, 4))) throw new Refusal("convert", { format: "TIFF" });
  if (/<svg[\s>]/.test(text(0, 1000))) throw new Refusal("drawing");
  throw new Refusal(bytes.length ? "unknown" : "empty");
}

function checkSize(width, height) {
  if (width * height >= LARGEST) throw new Refusal("large", { width, height });
  if (Math.min(width, height) < SMALLEST) throw new Refusal("small", { width, height });
}

// Walks over the segments to the end-of-image marker, so that a truncated file is noticed.
function jpeg(view) {
  let at = 2;
  let scanned = false;
  for (;;) {
    while (view.getUint8(at) !== 0xff || view.getUint8(at + 1) === 0xff) at++;
    const marker = view.getUint8(at + 1);
    at += 2;
    if (marker === 0xd9) {
      if (!scanned) throw new Refusal("damaged");
      return "jpeg";
    }
    if (marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd7)) continue; // inside the scan
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (view.getUint8(at + 2) !== 8) throw new Refusal("deep");
      checkSize(view.getUint16(at + 5), view.getUint16(at + 3));
      if (view.getUint8(at + 7) === 4) throw new Refusal("cmyk");
    }
    scanned ||= marker === 0xda;
    at += view.getUint16(at);
  }
}

function png(view, text) {
  checkSize(view.getUint32(16), view.getUint32(20));
  if (view.getUint8(24) === 16) throw new Refusal("deep");
  for (let at = 8; ; at += 12 + view.getUint32(at)) {
    const chunk = text(at + 4, 4);
    if (chunk === "acTL") throw new Refusal("animated");
    if (chunk === "IEND") return "png";
  }
}

function webp(view, text) {
  if (view.getUint32(4, true) + 8 > view.byteLength) throw new Refusal("damaged");
  const chunk = text(12, 4);
  if (chunk === "VP8X") {
    if (view.getUint8(20) & 2) throw new Refusal("animated");
    const side = (at) => 1 + view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
    checkSize(side(24), side(27));
  } else if (chunk === "VP8L") {
    const bits = view.getUint32(21, true);
    checkSize(1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff));
  } else {
    checkSize(view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff);
  }
  return "webp";
}
