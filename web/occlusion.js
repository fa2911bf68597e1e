// Which part of a picture the probability of melanoma rests on: cover one part after another and look how it changes
// (Zeiler & Fergus 2014). A patch has the mean colour of the picture.

const ROWS = 6; // of cells; a patch is two cells high and wide

// RGB bytes → {columns, rows, change: Float32Array of P(melanoma) uncovered minus covered, by cell}.
export async function occlusionMap(detector, image, progress = () => {}) {
  const { height, width, predict } = detector;
  const { melanoma, classes } = detector.rules;
  const cell = Math.max(Math.round(height / ROWS), 1);
  const [rows, columns] = [Math.ceil(height / cell), Math.ceil(width / cell)];
  const whole = (await predict(image))[melanoma];
  const colour = meanColour(image);
  const change = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const batch = new Uint8Array(columns * image.length);
    for (let column = 0; column < columns; column++) {
      const copy = batch.subarray(column * image.length, (column + 1) * image.length);
      copy.set(image);
      cover(copy, width, height, (column - 0.5) * cell, (row - 0.5) * cell, 2 * cell, colour);
    }
    const answer = await predict(batch);
    for (let k = 0; k < columns; k++) change[row * columns + k] = whole - answer[k * classes.length + melanoma];
    progress((row + 1) / rows);
    await new Promise((resume) => setTimeout(resume)); // let the page breathe
  }
  return { rows, columns, change, whole };
}

function cover(rgb, width, height, left, top, side, colour) {
  const [x0, y0] = [Math.max(Math.floor(left), 0), Math.max(Math.floor(top), 0)];
  const [x1, y1] = [Math.min(Math.floor(left) + side, width), Math.min(Math.floor(top) + side, height)];
  for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) rgb.set(colour, (y * width + x) * 3);
}

function meanColour(rgb) {
  const sums = [0, 0, 0];
  for (let i = 0; i < rgb.length; i++) sums[i % 3] += rgb[i];
  return sums.map((sum) => Math.round((sum * 3) / rgb.length));
}
