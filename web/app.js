// The page: files in, cards out. What is judged and how is in detector.js, judge.js, picture.js and pixels.js.

import { LoadError, loadDetector } from "./detector.js";
import { POINTS, judge, judgeLesion } from "./judge.js";
import { occlusionMap } from "./occlusion.js";
import { Refusal, decode } from "./picture.js";
import { cut, fit } from "./pixels.js";
import { DIAGNOSES, language, percent, say } from "./words.js";

const KEPT = 24; // pictures on the page; each holds two small canvases
const SHOWN = 640; // pixels across of the photo in a card, at most
const STEP = 0.02; // of the picture, by which an arrow key moves the frame

const element = (id) => document.getElementById(id);
const state = { detector: null, failure: null, share: 0, offline: "", cards: [], removed: false, decoded: null };
let queue = Promise.resolve(); // one picture at a time: a phone has memory for one

// --- loading --------------------------------------------------------------------------------------------------------

async function start() {
  translate();
  try {
    state.detector = await loadDetector(self.RELEASE, (share) => {
      state.share = share;
      showStatus();
    });
  } catch (error) {
    console.error(error);
    state.failure = error;
  }
  translate();
  for (const id of ["camera", "files", "point"]) element(id).disabled = !state.detector;
  await keepForOffline();
}

async function keepForOffline() {
  const workers = navigator.serviceWorker;
  if (!workers) {
    state.offline = "noOffline";
    return showStatus();
  }
  const replacing = Boolean(workers.controller);
  workers.addEventListener("controllerchange", () => replacing && location.reload());
  const registration = await workers.register("sw.js", { updateViaCache: "none" }).catch(() => null);
  if (!registration) return;
  const offer = () => (element("update").hidden = !(registration.waiting && workers.controller));
  element("reload").addEventListener("click", () => registration.waiting.postMessage("replace"));
  registration.addEventListener("updatefound", () => registration.installing.addEventListener("statechange", offer));
  offer();
  await workers.ready;
  state.offline = "offline";
  showStatus();
}

function showStatus() {
  const { detector, failure, share } = state;
  element("progress").hidden = Boolean(detector || failure);
  element("progress").value = share;
  element("status").classList.toggle("error", Boolean(failure));
  if (failure) {
    const known = failure instanceof LoadError;
    element("status").textContent = say(`load.${known ? failure.code : "failed"}`, { reason: failure.message });
  } else if (!detector) {
    element("status").textContent = share < 1 ? say("loading", { share: percent(share, 0) }) : say("checking");
  } else {
    const threads = detector.threads > 1 ? say("threads", { count: detector.threads }) : say("oneThread");
    const ready = say("ready", { id: detector.description.id, threads });
    element("status").textContent = state.offline ? `${ready} ${say(state.offline)}` : ready;
  }
}

function translate() {
  document.documentElement.lang = language();
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = say(one.dataset.word);
  element("language").hash = language() === "de" ? "en" : "de";
  element("language").lang = language() === "de" ? "en" : "de";
  showStatus();
  const { detector } = state;
  if (!detector) return;
  const chosen = element("point").selectedIndex;
  element("point").replaceChildren(
    ...POINTS.map((point) => {
      const threshold = percent(detector.rules.thresholds[point]);
      return new Option(say(`point.${point}`, { threshold }), point);
    }),
  );
  element("point").selectedIndex = Math.max(chosen, 0);
  const { licence, attribution } = detector.description;
  element("licence").textContent = say("licenceText", { licence, attribution });
  state.cards.forEach(show);
}

// --- pictures in ----------------------------------------------------------------------------------------------------

function take(files) {
  if (!state.detector) return;
  for (const file of files) addCard(file);
}

function addCard(file) {
  const root = element("card").content.cloneNode(true).firstElementChild;
  const card = { file, root, frame: { x: 0.5, y: 0.5, zoom: 1 }, map: null, result: null, refusal: null };
  state.cards.unshift(card);
  element("cards").prepend(root);
  while (state.cards.length > KEPT) {
    state.cards.pop().root.remove();
    state.removed = true;
  }
  root.querySelector(".name").textContent = file.name || "·";
  for (const one of root.querySelectorAll("[data-word]")) one.textContent = say(one.dataset.word);
  frameControls(card);
  root.querySelector(".occlusion").addEventListener("click", () => later(() => occlude(card)));
  show(card);
  later(() => judgeCard(card, true));
}

// Runs `work` after everything that was asked for before.
function later(work) {
  queue = queue.then(work).catch((error) => console.error(error));
  return queue;
}

async function pixelsOf(card) {
  if (state.decoded?.card !== card) {
    state.decoded = null; // before the next is decoded: two large photos may be too much
    state.decoded = { card, picture: await decode(card.file) };
  }
  return state.decoded.picture;
}

async function judgeCard(card, announce = false) {
  if (!state.cards.includes(card)) return;
  const { detector } = state;
  try {
    const begun = performance.now();
    const picture = await pixelsOf(card);
    if (!card.photo) drawPhoto(card, picture);
    const image = fit(cut(picture, framed(card, picture)), detector.height, detector.width);
    const ready = performance.now();
    const probabilities = await detector.predict(image);
    const done = performance.now();
    Object.assign(card, { image, probabilities, map: null, refusal: null });
    card.latency = { network: done - ready, whole: done - begun };
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    card.refusal = error instanceof Refusal ? error : new Refusal("failed", { reason: error.message });
  }
  show(card);
  if (announce) element("announce").textContent = `${card.file.name}: ${card.root.querySelector(".verdict").textContent}`;
}

// --- the frame ------------------------------------------------------------------------------------------------------

// Whole pixels {x, y, width, height} of the picture inside the frame. At zoom 1 the frame surrounds all of it.
function framed({ frame }, { width, height }) {
  const { height: down, width: across } = state.detector;
  const size = Math.max(width / across, height / down) / frame.zoom;
  const side = (whole, length, middle) => {
    const kept = Math.max(Math.min(Math.round(length), whole), 1);
    return [Math.round(Math.min(Math.max(middle * whole - kept / 2, 0), whole - kept)), kept];
  };
  const [x, partWidth] = side(width, size * across, frame.x);
  const [y, partHeight] = side(height, size * down, frame.y);
  return { x, y, width: partWidth, height: partHeight };
}

function frameControls(card) {
  const photo = card.root.querySelector(".photo");
  const moveTo = (x, y) => {
    Object.assign(card.frame, { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) });
    reframe(card);
  };
  photo.addEventListener("pointerdown", (event) => photo.setPointerCapture(event.pointerId));
  photo.addEventListener("pointermove", (event) => {
    if (!photo.hasPointerCapture(event.pointerId)) return;
    const box = photo.getBoundingClientRect();
    moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  const steps = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  photo.addEventListener("keydown", (event) => {
    if (!steps[event.key]) return;
    event.preventDefault();
    moveTo(card.frame.x + steps[event.key][0], card.frame.y + steps[event.key][1]);
  });
  card.root.querySelector(".zoom").addEventListener("input", (event) => {
    card.frame.zoom = Number(event.target.value);
    reframe(card);
  });
}

// Judges again once the frame has come to rest.
function reframe(card) {
  drawFrame(card);
  clearTimeout(card.waiting);
  card.waiting = setTimeout(() => later(() => judgeCard(card)), 150);
}

// --- cards out ------------------------------------------------------------------------------------------------------

function show(card) {
  const { root, refusal, probabilities } = card;
  const put = (name, text) => (root.querySelector(`.${name}`).textContent = text);
  const judged = probabilities && !refusal;
  const result = judged ? judge(probabilities, state.detector.rules, element("point").value) : null;
  card.decision = refusal ? "cannot judge" : result?.decision;
  root.querySelector(".verdict").dataset.decision = card.decision ?? "";
  put("verdict", card.decision ? say(`verdict.${card.decision}`) : say("judging"));
  root.querySelector(".answer").hidden = !judged || card.decision === "cannot judge";
  if (refusal) put("because", say(`refuse.${refusal.code}`, refusal.values));
  else if (card.decision === "cannot judge") put("because", say("refuse.output"));
  else put("because", card.decision ? say(`because.${card.decision}`) : "");
  if (!root.querySelector(".answer").hidden) showAnswer(card, result, put);
  showLesion();
}

function showAnswer(card, result, put) {
  const { root, probabilities } = card;
  const { description, rules, width, height } = state.detector;
  const names = DIAGNOSES[language()] ?? description.class_names;
  const { melanoma, threshold, set, surer } = result;
  const values = { p: percent(melanoma), threshold: percent(threshold) };
  put("melanoma", `${say("melanoma", values)}: ${say(`chance.${inWords(melanoma, threshold)}`)}`);
  const scale = root.querySelector(".scale");
  scale.setAttribute("aria-label", say("melanoma", values));
  scale.classList.toggle("refer", result.decision === "refer");
  root.querySelector(".bar").style.width = `${melanoma * 100}%`;
  root.querySelector(".mark").style.left = `${threshold * 100}%`;
  const coverage = percent(rules.coverage, 0);
  put("set", set.length ? say("set", { coverage, names: set.map((name) => names[name]).join(", ") }) : say("setEmpty", { coverage }));
  put("doubt", surer === null ? say("sure") : say("doubt", { share: percent(surer, 0) }));
  root.querySelector(".framed").hidden = card.frame.zoom === 1;
  put("sees", say("model", { width, height }));
  put("latency", say("latency", { network: card.latency.network.toFixed(0), whole: card.latency.whole.toFixed(0) }));
  put("occluded", card.map ? occludedInWords(card.map) : "");
  root.querySelector(".photo").setAttribute("aria-label", say("photo", { name: card.file.name }));
  root.querySelector(".model").setAttribute("aria-label", say("model", { width, height }));
  const order = rules.classes.map((name, k) => [probabilities[k], name]).sort((a, b) => b[0] - a[0]);
  root.querySelector("tbody").replaceChildren(
    ...order.map(([p, name]) => {
      const row = document.createElement("tr");
      const head = Object.assign(document.createElement("th"), { scope: "row", textContent: names[name] });
      row.append(head, Object.assign(document.createElement("td"), { textContent: percent(p) }));
      return row;
    }),
  );
  drawModel(card);
}

function inWords(p, threshold) {
  if (p >= threshold) return p > 0.5 ? "high" : "above";
  return p >= threshold / 2 ? "below" : "low";
}

function showLesion() {
  const { cards } = state;
  element("many").hidden = cards.length === 0;
  element("kept").hidden = !state.removed;
  element("kept").textContent = say("kept", { count: KEPT });
  const verdict = element("lesion-verdict");
  const waiting = cards.some((card) => !card.decision);
  verdict.hidden = !element("lesion").checked || cards.length === 0 || waiting;
  if (verdict.hidden) return;
  const decision = judgeLesion(cards.map((card) => card.decision));
  verdict.dataset.decision = decision;
  verdict.textContent = say(`lesion.${decision}`, { count: cards.length });
}

function drawPhoto(card, picture) {
  const scale = Math.min(SHOWN / picture.width, SHOWN / picture.height, 1);
  const whole = document.createElement("canvas");
  Object.assign(whole, { width: picture.width, height: picture.height });
  whole.getContext("2d").putImageData(new ImageData(picture.data, picture.width), 0, 0);
  const photo = document.createElement("canvas");
  photo.width = Math.max(Math.round(picture.width * scale), 1);
  photo.height = Math.max(Math.round(picture.height * scale), 1);
  photo.getContext("2d").drawImage(whole, 0, 0, photo.width, photo.height);
  whole.width = whole.height = 0;
  card.photo = photo;
  drawFrame(card);
}

function drawFrame({ root, photo, frame }) {
  const canvas = root.querySelector(".photo");
  const context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [photo.width, photo.height];
  context.drawImage(photo, 0, 0);
  const part = framed({ frame }, photo);
  context.fillStyle = "#000a";
  context.fillRect(0, 0, photo.width, photo.height);
  context.drawImage(photo, part.x, part.y, part.width, part.height, part.x, part.y, part.width, part.height);
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.strokeRect(part.x + 1.5, part.y + 1.5, part.width - 3, part.height - 3);
}

function drawModel({ root, image, map }) {
  const { width, height } = state.detector;
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0, j = 0; i < image.length; i += 3, j += 4) data.set(image.subarray(i, i + 3), j);
  const canvas = root.querySelector(".model");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(data, width), 0, 0);
  if (!map) return;
  const largest = Math.max(...map.change.map(Math.abs), Number.MIN_VALUE);
  const side = height / map.rows;
  map.change.forEach((change, k) => {
    context.fillStyle = change > 0 ? "#e0002a" : "#0060ff";
    context.globalAlpha = (0.65 * Math.abs(change)) / largest;
    context.fillRect((k % map.columns) * side, Math.floor(k / map.columns) * side, side, side);
  });
}

async function occlude(card) {
  if (!card.image || card.refusal) return;
  const button = card.root.querySelector(".occlusion");
  const said = card.root.querySelector(".occluded");
  button.disabled = true;
  try {
    card.map = await occlusionMap(state.detector, card.image, (share) => {
      said.textContent = say("occluding", { share: percent(share, 0) });
    });
  } finally {
    button.disabled = false;
  }
  show(card);
}

function occludedInWords({ change, rows, columns, whole }) {
  const strongest = change.reduce((best, value, k) => (Math.abs(value) > Math.abs(change[best]) ? k : best), 0);
  if (Math.abs(change[strongest]) < 0.01) return say("occluded.none");
  const third = (index, count, names) => names[Math.min(Math.floor((index * 3) / count), 2)];
  const down = third(Math.floor(strongest / columns), rows, ["top", "centre", "bottom"]);
  const across = third(strongest % columns, columns, ["left", "middle", "right"]);
  const values = { before: percent(whole), after: percent(whole - change[strongest]), place: say(`place.${down} ${across}`) };
  return `${say("occluded", values)} (${say("legend")})`;
}

// --- events ---------------------------------------------------------------------------------------------------------

for (const id of ["camera", "files"]) {
  element(id).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
}
element("point").addEventListener("change", () => state.cards.forEach(show));
element("lesion").addEventListener("change", showLesion);
element("clear").addEventListener("click", () => {
  Object.assign(state, { cards: [], removed: false, decoded: null });
  element("cards").replaceChildren();
  showLesion();
  element("files").focus();
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("input").classList.add("over");
});
document.addEventListener("dragleave", () => element("input").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("input").classList.remove("over");
  take([...event.dataTransfer.files]);
});
window.addEventListener("hashchange", translate);
start();
