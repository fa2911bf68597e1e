// Sorts tables and enlarges pictures; the page is complete without it. Nothing is fetched or stored.
"use strict";

const dash = "\u2013";
const shown = (cell) =>
  [...cell.childNodes].filter((node) => node.nodeName !== "SMALL").map((node) => node.textContent).join("").trim();
const number = (text) => {
  const match = text.replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "").match(/^[<+]?\s*(-?\d+(\.\d+)?)/);
  return match ? parseFloat(match[1]) : NaN;
};

function sort(table, column, button) {
  const heads = [...table.tHead.rows[0].cells];
  const descending = heads[column].getAttribute("aria-sort") !== "descending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [row, shown(row.cells[column])]);
  const numeric = rows.every(([, text]) => text === dash || text === "too few" || !isNaN(number(text)));
  const sign = descending ? -1 : 1;
  rows.sort(([, a], [, b]) => {
    if (!numeric) return sign * -a.localeCompare(b); // words: the first click gives A to Z
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is missing stays last
    return sign * (x - y);
  });
  table.tBodies[0].append(...rows.map(([row]) => row));
  button.focus();
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.title = "sort";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, button));
    head.append(button);
  });
}

const viewer = document.createElement("dialog");
const large = document.createElement("img");
const close = document.createElement("button");
close.type = "button";
close.textContent = "Close";
viewer.className = "viewer";
viewer.append(close, large);
viewer.addEventListener("click", (event) => event.target !== large && viewer.close());
document.body.append(viewer);

for (const image of document.querySelectorAll("figure img")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "zoom";
  button.setAttribute("aria-label", `Enlarge: ${image.closest("figure").querySelector("figcaption b").textContent}`);
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    large.src = image.src;
    large.alt = image.alt;
    viewer.showModal();
  });
}
