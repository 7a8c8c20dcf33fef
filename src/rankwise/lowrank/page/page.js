const image = new LowRank(DATA);
const NAMES = image.colours === 1 ? ["grey"] : ["red", "green", "blue"];
const MATRIX_NAMES = { own: NAMES, shared: NAMES, "luma-chroma": image.colours === 1 ? NAMES : ["luma", "blue chroma", "red chroma"], joint: [image.colours === 1 ? "grey" : "all side by side"] };
const COLOURS = { grey: "var(--s7)", red: "var(--s5)", green: "var(--s2)", blue: "var(--s0)", luma: "var(--s7)", "blue chroma": "var(--s0)", "red chroma": "var(--s5)", "all side by side": "var(--s3)" };
const state = { energy: DATA.energy, rank: undefined, view: "copy" };
const SIDE = Math.min(image.rows, image.columns);
window.rankwise = { copy: (wanted) => image.copy(wanted), energyFor: (change, options) => image.energyFor(change, options) };

const options = () => ({ energyOf: byId("energyOf").value, rankRule: byId("rankRule").value, channels: byId("channels").value });
const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)}%`;
const decibels = (psnr) => (Number.isFinite(psnr) ? `${psnr.toFixed(1)} dB` : "equal");
const listed = (ranks) => (new Set(ranks).size === 1 ? String(ranks[0]) : ranks.join("/"));

// Draw bytes of one or three channels; of one channel of three in its own colour.
function paint(canvas, pixels, channel = null) {
  const { rows, columns, colours } = image;
  canvas.width = columns; canvas.height = rows;
  const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    for (let c = 0; c < 3; c++) {
      picture.data[4 * i + c] = colours === 1 ? pixels[i]
        : channel === null ? pixels[3 * i + c] : c === channel ? pixels[3 * i + c] : 0;
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function show() {
  const now = image.copy({ ...(state.rank === undefined ? { energy: state.energy } : { rank: state.rank }), ...options() });
  state.now = now;
  const curves = image.curves(options());
  const kept = now.ranks.map((k, i) => curves[Math.min(i, curves.length - 1)][k - 1]);
  const mean = kept.reduce((a, b) => a + b, 0) / kept.length;
  const shown = state.rank === undefined ? state.energy : mean;
  byId("energy").value = shown;
  if (document.activeElement !== byId("energy-number")) byId("energy-number").value = +(100 * shown).toFixed(2);
  byId("rank").value = state.rank ?? Math.max(...now.ranks);
  byId("rank-number").value = state.rank ?? listed(now.ranks);
  const facts = [
    ["rank", listed(now.ranks), `of ${image.matrices(options().channels)[0].sigma.length}; ${percent(mean)} of the energy`],
    ["mean change", now.change.toFixed(2), "of 255"],
    ["PSNR", decibels(now.psnr), `error ${percent(now.error)}`],
    ["compression", `${now.compression.toFixed(2)} ×`, now.compression < 1 ? "the factors take more room" : "fewer numbers"],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value, more]) => element("div", {},
    element("dt", {}, name), element("dd", {}, element("b", {}, value), ` ${more}`))));
  const views = { copy: now.pixels, original: image.pixels };
  paint(byId("picture"), views[state.view] ?? now.pixels.map((v, i) => Math.min(255, 8 * Math.abs(v - image.pixels[i]))));
  byId("picture").setAttribute("aria-label", { copy: `The copy, rank ${listed(now.ranks)}`, original: "The original", difference: "Their difference, eight times" }[state.view]);
  for (const view of ["copy", "original", "difference"]) byId(`view-${view}`).setAttribute("aria-pressed", String(view === state.view));
  drawChannels(now);
  drawSpectrum(now, curves);
}

function drawChannels(now) {
  const grid = byId("channel-grid"), single = image.colours === 1;
  if (!grid.children.length) {
    grid.classList.add("channels");
    grid.style.setProperty("--columns", single ? 2 : 4);
    const names = single ? ["grey", "copy"] : ["image", ...NAMES, "copy", ...NAMES];
    grid.append(...names.map(() => element("figure", {}, element("canvas"), element("figcaption"))));
    const half = single ? 1 : 4;
    [...grid.children].slice(0, half).forEach((figure, i) => {
      paint(figure.firstChild, image.pixels, single || i === 0 ? null : i - 1);
      figure.lastChild.textContent = names[i];
    });
  }
  const half = single ? 1 : 4, perColour = now.ranks.length === image.colours && options().channels !== "luma-chroma";
  [...grid.children].slice(half).forEach((figure, i) => {
    paint(figure.firstChild, now.pixels, single || i === 0 ? null : i - 1);
    const rank = perColour ? now.ranks[single ? 0 : i - 1] : null;
    figure.lastChild.textContent = i === 0 && !single ? `copy, ${decibels(now.psnr)}`
      : rank === null ? "copy" : `rank ${rank} of ${SIDE}${single ? `, ${decibels(now.psnr)}` : ""}`;
  });
}

function drawRanks() {
  const order = image.matrices(options().channels)[0].sigma.length, curves = image.curves(options());
  const ranks = [...new Set([...Array(7).keys()].map((i) => Math.min(order, Math.max(1, Math.round(order ** (i / 6))))))];
  byId("rank").max = order;
  byId("rank-grid").replaceChildren(...ranks.map((rank) => {
    const found = image.copy({ rank, ...options() }), canvas = element("canvas");
    paint(canvas, found.pixels);
    const share = curves.reduce((sum, curve) => sum + curve[rank - 1], 0) / curves.length;
    const button = element("button", { type: "button" }, canvas,
      element("span", { className: "soft" }, `rank ${rank}: ${percent(share, 1)}, ${decibels(found.psnr)}`));
    button.onclick = () => { state.rank = rank; show(); };
    return button;
  }));
}

// -- charts: plain SVG, its colours those of the page ---------------------------------------------

function svg(tag, properties, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function chart(place, { label, order, low, high, ticks, lines, marks = [] }) {
  const [left, right, top, bottom, width, height] = [46, 408, 10, 186, 420, 214];
  const x = (k) => left + ((k - 1) / Math.max(1, order - 1)) * (right - left);
  const y = (v) => bottom - ((v - low) / (high - low || 1)) * (bottom - top);
  const parts = [];
  for (const [value, text] of ticks) {
    parts.push(svg("line", { x1: left, x2: right, y1: y(value), y2: y(value), stroke: "var(--rule)" }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const k of [...new Set([1, Math.round(order / 2), order])]) {
    parts.push(svg("text", { x: x(k), y: bottom + 16, "text-anchor": "middle" }, String(k)));
  }
  parts.push(svg("text", { x: (left + right) / 2, y: height - 1, "text-anchor": "middle" }, "rank"));
  for (const { points, colour, width: stroke = 1.5, dash = "" } of [...lines, ...marks]) {
    parts.push(svg("polyline", { points: points.map(([k, v]) => `${x(k).toFixed(1)},${y(v).toFixed(1)}`).join(" "),
      fill: "none", stroke: colour, "stroke-width": stroke, "stroke-dasharray": dash, "stroke-linecap": "round" }));
  }
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts));
}

function drawSpectrum(now, curves) {
  const matrices = image.matrices(options().channels), names = MATRIX_NAMES[options().channels];
  const order = matrices[0].sigma.length, largest = Math.max(...matrices.map(({ sigma }) => sigma[0]));
  const high = largest > 0 ? Math.ceil(Math.log10(largest)) : 1, low = high - 5;
  const log = (s) => Math.max(low, s > 0 ? Math.log10(s) : low);
  const lines = matrices.flatMap(({ sigma }, m) => {
    const points = sigma.map((s, i) => [i + 1, log(s)]), colour = COLOURS[names[m]];
    return [{ points, colour, width: 1 }, { points: points.slice(0, now.ranks[m]), colour, width: 3 }];
  });
  chart(byId("scree"), { label: "Singular values on a logarithmic scale", order, low, high, lines,
    ticks: [0, 1, 2, 3, 4, 5].map((i) => [low + i, `1e${low + i}`]),
    marks: now.ranks.map((k, m) => ({ points: [[k, low], [k, log(matrices[m].sigma[k - 1])]], colour: COLOURS[names[m]], width: 1 })) });
  const asked = state.rank === undefined ? [{ points: [[1, state.energy], [order, state.energy]], colour: "var(--ink)", width: 1, dash: "5 4" }] : [];
  chart(byId("cumulative"), { label: "Share of the energy by rank", order, low: 0, high: 1,
    ticks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, percent(v, 0)]),
    lines: curves.map((curve, m) => ({ points: curve.map((v, i) => [i + 1, v]), colour: COLOURS[curves.length === 1 && names.length > 1 ? "grey" : names[m]] })),
    marks: [...asked, ...now.ranks.map((k, m) => ({ points: [[k, 0], [k, curves[Math.min(m, curves.length - 1)][k - 1]]], colour: COLOURS[names[m]], width: 1 }))] });
}

// -- strengths ------------------------------------------------------------------------------------

// One after another, so that the sliders answer meanwhile; begun anew when the choices change.
let begun = 0;
function drawStrengths() {
  const mine = ++begun, chosen = options();
  const wanted = [...DATA.published.map(([name, energy]) => [name, () => energy]),
    ...DATA.strengths.map(([name, change]) => [name, () => image.energyFor(change, chosen)])];
  const buttons = wanted.map(([name]) => element("button", { type: "button", disabled: true }, name, element("small", {}, "…")));
  byId("strengths").replaceChildren(...buttons);
  const fill = (i) => {
    if (mine !== begun || i === wanted.length) return;
    const energy = wanted[i][1](), button = buttons[i], said = button.lastChild;
    if (energy === null) said.textContent = "no energy changes it so much";
    else {
      said.textContent = `${+(100 * energy).toFixed(2)}%, changes ${image.copy({ energy, ...chosen }).change.toFixed(2)}`;
      button.disabled = false;
      button.onclick = () => { state.energy = energy; state.rank = undefined; show(); };
    }
    setTimeout(fill, 0, i + 1);
  };
  setTimeout(fill, 0, 0);
}

// -- what moves it --------------------------------------------------------------------------------

function all() { drawRanks(); show(); drawStrengths(); }

byId("energy").oninput = (e) => { state.energy = Math.min(1, +e.target.value); state.rank = undefined; show(); };
byId("energy-number").oninput = (e) => {
  const energy = +e.target.value / 100;
  if (energy > 0 && energy <= 1) { state.energy = energy; state.rank = undefined; show(); }
};
byId("rank").oninput = (e) => { state.rank = +e.target.value; show(); };
for (const name of ["energyOf", "rankRule", "channels"]) byId(name).onchange = all;
for (const view of ["copy", "original", "difference"]) byId(`view-${view}`).onclick = () => { state.view = view; show(); };
document.addEventListener("keydown", (e) => {
  const view = { c: "copy", o: "original", d: "difference" }[e.key.toLowerCase()];
  const typing = e.target instanceof HTMLSelectElement || e.target.type === "number";
  if (view && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) { state.view = view; show(); }
});
if (image.colours === 1) byId("channels-label").hidden = true;
all();
