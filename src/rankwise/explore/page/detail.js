// One image: its probabilities, and why, as a sum laid over it.

const WHY = DATA.reasons, OCCLUDED = WHY.occluded;
const whyPlace = new Map((WHY.rows ?? []).map((row, k) => [row, k]));
const occludedPlace = new Map((OCCLUDED.rows ?? []).map((row, k) => [row, k]));
const why = WHY.rows ? {
  classes: unpacked(WHY.classes, Uint16Array), outputs: unpacked(WHY.outputs, Float32Array),
  maps: unpacked(WHY.maps, Float32Array), unitMaps: unpacked(WHY.unitMaps, Float32Array),
  cells: WHY.grid[0] * WHY.grid[1], units: WHY.units[0]?.length ?? 0,
} : null;
const covered = OCCLUDED.rows ? { maps: unpacked(OCCLUDED.maps, Float32Array), cells: OCCLUDED.grid[0] * OCCLUDED.grid[1] } : null;

const signed = (v, digits = 3) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(digits);
let opened = { rows: [], at: 0, from: null };

function openDetail(i, rows, from) {
  opened = { rows, at: Math.max(0, rows.indexOf(i)), from };
  showDetail();
  if (!byId("detail").open) byId("detail").showModal();
}

function step(by) {
  const to = opened.at + by;
  if (to < 0 || to >= opened.rows.length) return;
  opened.at = to;
  showDetail();
}

function iconButton(text, label, act, disabled = false) {
  const button = element("button", { type: "button", textContent: text, disabled });
  button.setAttribute("aria-label", label);
  button.title = label;
  button.addEventListener("click", act);
  return button;
}

function showDetail() {
  const i = opened.rows[opened.at], dialog = byId("detail");
  const held = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const truth = CLASSES[IMAGES.truth[i]], predicted = CLASSES[IMAGES.predicted[i]];
  const top = element("div", { className: "bar-top" },
    iconButton("←", "Previous image", () => step(-1), opened.at === 0),
    iconButton("→", "Next image", () => step(1), opened.at === opened.rows.length - 1),
    element("h2", { id: "detail-title", textContent: nameOf(i), title: nameOf(i) }),
    iconButton("✕", "Close", () => dialog.close()));
  const canvas = element("canvas", { className: Math.max(...SHEETS.size) <= 64 && DATA.pictures[i] === undefined ? "pixelated" : "" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", nameOf(i));
  drawLarge(canvas, i);
  const verdict = element("p", { className: isRight(i) ? "verdict" : "verdict wrong", textContent: predicted });
  const facts = element("div", {}, verdict,
    element("p", { className: "soft" }, isRight(i) ? `${percent(share(i))} sure, as its label says` : `${percent(share(i))} sure, but its label is ${truth}`,
      `; ${opened.at + 1} of ${count(opened.rows.length)} in this list${DATA.parts.length > 1 ? `, ${partOf(i) === "train" ? "a training image" : "a test image"}` : ""}`),
    shares(i));
  if (partOf(i) === "train") facts.append(tickBox(i, ["picked", ["picked by hand", "", 0]]));
  const body = element("div", { className: "detail" }, element("div", { className: "picture" }, canvas), facts);
  const reason = reasonOf(i);
  if (reason) body.append(reason);
  dialog.replaceChildren(top, body);
  const focused = Array.from(top.querySelectorAll("button")).find((b) => b.getAttribute("aria-label") === held && !b.disabled);
  focused?.focus();
}

function shares(i) {
  const list = element("ol", { className: "shares" });
  for (let j = 0; j < IMAGES.per; ++j) {
    const c = topClass(i, j), p = share(i, j);
    if (j > 4 && p < 0.001 && c !== IMAGES.truth[i]) continue;
    const fill = element("span", { className: "fill" });
    fill.style.width = `${100 * p}%`;
    const line = element("li", {}, element("span", { textContent: CLASSES[c] }), element("span", { className: "track" }, fill), element("span", { className: "amount", textContent: percent(p) }));
    if (c === IMAGES.truth[i]) { line.className = "truth"; line.title = "its label"; }
    list.append(line);
  }
  return list;
}

// -- why ----------------------------------------------------------------------------------------

function reasonOf(i) {
  const k = whyPlace.get(i), o = occludedPlace.get(i);
  if (k === undefined && o === undefined) return null;
  const section = element("section", { className: "why" }, element("h3", { textContent: "Why" }));
  if (k !== undefined) section.append(exactly(i, k));
  else if (!WHY.exact) section.append(element("p", { className: "soft", textContent: "The backbone's features have no place in the picture; covering places of it shows which ones matter." }));
  if (o !== undefined && k === undefined) {
    const [a, b] = OCCLUDED.pairs[o];
    section.append(element("div", { className: "maps" }, coveredFigure(i, o, a, b)));
  }
  return section;
}

// The part of one class's output that each place has: bias and these add up to the output.
function mapOf(k, c) {
  for (let j = 0; j < WHY.kept; ++j) {
    if (why.classes[k * WHY.kept + j] === c) {
      const start = (k * WHY.kept + j) * why.cells;
      return { output: why.outputs[k * WHY.kept + j], map: why.maps.subarray(start, start + why.cells) };
    }
  }
  return null;
}

function exactly(i, k) {
  const [first, second] = WHY.pairs[k], place = element("div");
  const known = Array.from({ length: WHY.kept }, (_, j) => why.classes[k * WHY.kept + j]);
  const option = (c, chosen) => element("option", { value: String(c), textContent: CLASSES[c], selected: c === chosen });
  const a = element("select", {}, known.map((c) => option(c, first)));
  const b = element("select", {}, element("option", { value: "-1", textContent: "nothing" }), known.map((c) => option(c, second)));
  a.setAttribute("aria-label", "Class");
  b.setAttribute("aria-label", "Compared with");
  const draw = () => place.replaceChildren(...sums(i, k, Number(a.value), Number(b.value)));
  a.addEventListener("change", draw);
  b.addEventListener("change", draw);
  draw();
  return element("div", {}, element("p", { className: "choice" }, "What speaks for ", a, " rather than ", b), place);
}

const total = (map) => map.reduce((s, v) => s + v, 0);

function sums(i, k, a, b) {
  const one = mapOf(k, a), other = b < 0 ? null : mapOf(k, b);
  const line = (c, { map, output }) => `${CLASSES[c]}: ${signed(WHY.bias[c])} at first, ${signed(total(map))} from the places of the picture, together ${signed(WHY.bias[c] + total(map))}; the model's output is ${signed(output)}.`;
  const text = [element("p", { className: "sum soft" }, line(a, one), ...(other ? [element("br"), line(b, other)] : []))];
  const whole = other ? one.map.map((v, j) => v - other.map[j]) : one.map;
  const figures = [mapFigure(i, whole, WHY.grid, "all units", total(whole))];
  const [first, second] = WHY.pairs[k];
  if (a === first && b === second) {
    for (let u = 0; u < why.units; ++u) {
      const start = (k * why.units + u) * why.cells, [p, q] = WHY.parts[k][u];
      figures.push(mapFigure(i, why.unitMaps.subarray(start, start + why.cells), WHY.grid, `unit ${WHY.units[k][u] + 1}`, p - q));
    }
    const o = occludedPlace.get(i);
    if (o !== undefined) figures.push(coveredFigure(i, o, a, b));
  }
  const what = b < 0 ? CLASSES[a] : `${CLASSES[a]} rather than ${CLASSES[b]}`;
  text.push(element("p", { className: "soft" }, `Orange places speak for ${what}, blue ones against it.`));
  return [...text, element("div", { className: "maps" }, figures)];
}

function coveredFigure(i, o, a, b) {
  const map = covered.maps.subarray(o * covered.cells, (o + 1) * covered.cells);
  const figure = mapFigure(i, map, OCCLUDED.grid, "covered", null);
  figure.querySelector("figcaption").append(`: what the lead of ${CLASSES[a]} over ${CLASSES[b]} loses`);
  return figure;
}

function mapFigure(i, map, [rows, columns], name, amount) {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", amount === null ? name : `${name}, ${signed(amount)}`);
  overlay(canvas, i, map, rows, columns);
  return element("figure", {}, canvas, element("figcaption", {}, element("b", { textContent: name }), amount === null ? "" : ` ${signed(amount)}`));
}

// The picture in grey with a map laid over it, smoothly between its places.
async function overlay(canvas, i, map, rows, columns) {
  await drawLarge(canvas, i);
  const zoom = Math.max(1, Math.ceil(150 / Math.max(canvas.width, canvas.height)));
  const source = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const [height, width] = [canvas.height * zoom, canvas.width * zoom], small = canvas.width;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const most = map.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-12);
  const clip = (v, n) => Math.min(n - 1, Math.max(0, v));
  const value = (y, x) => map[clip(y, rows) * columns + clip(x, columns)];
  for (let y = 0; y < height; ++y) for (let x = 0; x < width; ++x) {
    const v = ((y + 0.5) / height) * rows - 0.5, u = ((x + 0.5) / width) * columns - 0.5;
    const r = Math.floor(v), c = Math.floor(u), s = v - r, t = u - c;
    const here = (1 - s) * ((1 - t) * value(r, c) + t * value(r, c + 1)) + s * ((1 - t) * value(r + 1, c) + t * value(r + 1, c + 1));
    const at = 4 * (Math.floor(y / zoom) * small + Math.floor(x / zoom)), to = 4 * (y * width + x);
    const grey = 0.8 * (0.3 * source.data[at] + 0.59 * source.data[at + 1] + 0.11 * source.data[at + 2]);
    const strength = 0.78 * Math.min(1, Math.abs(here) / most), colour = here > 0 ? [255, 140, 40] : [60, 140, 255];
    for (let k = 0; k < 3; ++k) image.data[to + k] = grey * (1 - strength) + colour[k] * strength;
    image.data[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
