// A decoded picture becomes the pixels that the model sees: the rule of `ingest/pixels.py::fit`, to the bit.
//
// Canvas scaling differs between browsers, so the bicubic filter is written out here: that of Pillow's `Resample.c`
// (antialiasing, a = -0.5, 22 bits of fixed point, 8 bits between the two passes). A JPEG is halved first as often as
// Python's decoder does it: that decoder's brightness is the mean of the pixels too, up to rounding (libjpeg's
// `jidctred.c`), its colour where it is stored coarser is a little sharper.

const BITS = 22;
const HALF = 2 ** (BITS - 1); // so that dropping the bits rounds

// Pixels {data: RGBA bytes, width, height, kind} of a picture → RGB bytes (height, width, 3) of the model's input.
export function fit(picture, height, width) {
  const source = picture.kind === "jpeg" ? reduced(picture, Math.max(height, width)) : picture;
  const [across, down] = inside(source.width, source.height, height, width);
  return mirrored(resized(source, across, down), across, down, height, width);
}

// [width, height] of a picture of across × down scaled to fit; whole numbers until the one division.
export function inside(across, down, height, width) {
  if (across * height >= down * width) return [width, Math.max(halfToEven((down * width) / across), 1)];
  return [Math.max(halfToEven((across * height) / down), 1), height];
}

// The part of a picture that a rectangle {x, y, width, height} in whole pixels covers.
export function cut(picture, part) {
  const data = new Uint8ClampedArray(part.width * part.height * 4);
  for (let row = 0; row < part.height; row++) {
    const start = ((part.y + row) * picture.width + part.x) * 4;
    data.set(picture.data.subarray(start, start + part.width * 4), row * part.width * 4);
  }
  return { ...picture, data, width: part.width, height: part.height };
}

// Means of 2 × 2, 4 × 4 or 8 × 8 pixels, the largest that leaves both sides `side` pixels; fewer pixels at the far edges.
function reduced(picture, side) {
  const { data, width, height } = picture;
  const factor = [8, 4, 2].find((one) => Math.min(width, height) >= one * side);
  if (!factor) return picture;
  const [across, down] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const out = new Uint8ClampedArray(across * down * 4);
  for (let y = 0, to = 0; y < down; y++) {
    const bottom = Math.min((y + 1) * factor, height);
    for (let x = 0; x < across; x++, to += 4) {
      const right = Math.min((x + 1) * factor, width);
      let [red, green, blue, count] = [0, 0, 0, 0];
      for (let row = y * factor; row < bottom; row++) {
        for (let i = (row * width + x * factor) * 4; i < (row * width + right) * 4; i += 4, count++) {
          red += data[i];
          green += data[i + 1];
          blue += data[i + 2];
        }
      }
      out[to] = Math.floor(red / count + 0.5); // a clamped array would round halves to even
      out[to + 1] = Math.floor(green / count + 0.5);
      out[to + 2] = Math.floor(blue / count + 0.5);
      out[to + 3] = 255;
    }
  }
  return { ...picture, data: out, width: across, height: down };
}

function halfToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

// RGB bytes of `picture` at across × down. Each pass rounds to 8 bits, so their order shows: rows first, but columns first
// where Pillow does (found by trying: a picture to be shrunk that is more than twice as tall as wide).
function resized(picture, across, down) {
  const { data, width, height } = picture;
  if (height > 2 * width && down < height) return rows(columns(data, width * 4, height, down), width, down, across);
  return columns(rows(data, width, height, across), across * 3, height, down);
}

// Every row of RGBA bytes from `width` to `across` pixels; RGB bytes.
function rows(data, width, height, across) {
  const out = new Uint8ClampedArray(across * height * 3); // clamped: takes care of overshoots
  const taps = across === width ? null : coefficients(width, across);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < across; x++, to += 3) {
      if (!taps) {
        for (let c = 0; c < 3; c++) out[to + c] = data[(y * width + x) * 4 + c];
        continue;
      }
      const { first, weights } = taps[x];
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let k = 0, i = (y * width + first) * 4; k < weights.length; k++, i += 4) {
        red += data[i] * weights[k];
        green += data[i + 1] * weights[k];
        blue += data[i + 2] * weights[k];
      }
      out[to] = red >> BITS;
      out[to + 1] = green >> BITS;
      out[to + 2] = blue >> BITS;
    }
  }
  return out;
}

// `height` rows of `row` bytes become `down` rows.
function columns(data, row, height, down) {
  if (down === height) return data;
  const taps = coefficients(height, down);
  const out = new Uint8ClampedArray(down * row);
  for (let y = 0; y < down; y++) {
    const { first, weights } = taps[y];
    for (let x = 0; x < row; x++) {
      let sum = HALF;
      for (let k = 0, i = first * row + x; k < weights.length; k++, i += row) sum += data[i] * weights[k];
      out[y * row + x] = sum >> BITS;
    }
  }
  return out;
}

// For each of `to` pixels, which of `from` pixels it is made of: the index of the first, and their weights.
function coefficients(from, to) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // below 1 the picture grows and nothing needs smoothing
  const support = 2 * stretch;
  return Array.from({ length: to }, (_, pixel) => {
    const centre = (pixel + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), from);
    const exact = Array.from({ length: last - first }, (_, k) => cubic((k + first - centre + 0.5) * (1 / stretch)));
    const sum = exact.reduce((total, weight) => total + weight, 0);
    const fixed = exact.map((weight) => {
      const share = (weight / sum) * 2 ** BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    return { first, weights: Int32Array.from(fixed) };
  });
}

function cubic(signed) {
  const [a, x] = [-0.5, Math.abs(signed)];
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// `rgb` in the middle of width × height; margins mirror it about its outermost pixels, an odd one right or below.
function mirrored(rgb, across, down, height, width) {
  const [left, top] = [(width - across) >> 1, (height - down) >> 1];
  const columns = Array.from({ length: width }, (_, x) => reflect(x - left, across));
  const out = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    const row = reflect(y - top, down) * across;
    for (let x = 0; x < width; x++) {
      const from = (row + columns[x]) * 3;
      for (let c = 0; c < 3; c++) out[to++] = rgb[from + c];
    }
  }
  return out;
}

function reflect(index, count) {
  if (count === 1) return 0;
  const period = 2 * (count - 1);
  const k = ((index % period) + period) % period;
  return Math.min(k, period - k);
}
