// Prints its argument, an address, as a QR code: two modules to a character, dark on light on any terminal.

import qrcode from "qrcode-generator";

const code = qrcode(0, "M"); // the smallest size that fits, medium error correction
code.addData(process.argv[2]);
code.make();
const margin = 2;
const dark = (row, column) => {
  const inside = [row, column].every((index) => index >= 0 && index < code.getModuleCount());
  return inside && code.isDark(row, column);
};
for (let row = -margin; row < code.getModuleCount() + margin; row += 2) {
  let line = "";
  for (let column = -margin; column < code.getModuleCount() + margin; column++) {
    line += [" ", "▀", "▄", "█"][Number(!dark(row, column)) + 2 * Number(!dark(row + 1, column))];
  }
  console.log(`\x1b[97;40m${line}\x1b[0m`);
}
