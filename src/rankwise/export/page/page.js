const network = new Network(JSON.parse(byId("network").textContent), byId("weights").textContent);
const { image_shape: SHAPE, classes: CLASSES, scale: SCALE } = network.about;
const [BLACK, WHITE] = SCALE === 1 ? network.about.levels : [0, 255];
const [ROWS, COLUMNS] = SHAPE, CHANNELS = SHAPE.length === 3 ? SHAPE[2] : 1;
const PICTURES = SHAPE.length <= 3 && (CHANNELS === 1 || CHANNELS === 3);
const DRAWS = PICTURES && CHANNELS === 1 && ROWS === COLUMNS;
const N_PIXELS = SHAPE.reduce((a, b) => a * b, 1);

const rankwise = {
  // Of pixels row by row, channels together: bytes, or floats for a model of floats.
  predict(pixels) {
    if (pixels.length !== N_PIXELS) {
      throw new RangeError(`an image is ${SHAPE.join(" × ")} = ${N_PIXELS} numbers, got ${pixels.length}`);
    }
    const { logits, probabilities } = network.run(pixels);
    return { label: CLASSES[logits.indexOf(Math.max(...logits))], probabilities };
  },
  // Of RGBA bytes of any size, as a canvas gives them: converted and resized as in training.
  pixels(rgba, height, width) {
    const bytes = resized(channelsOf(rgba, CHANNELS), [height, width], [ROWS, COLUMNS], CHANNELS);
    return asFitted(bytes);
  },
};
window.rankwise = rankwise;

// Bytes on the scale of the model's images.
function asFitted(bytes) {
  return SCALE === 1 ? Float32Array.from(bytes, (v) => BLACK + (v / 255) * (WHITE - BLACK)) : bytes;
}

// -- what is shown ------------------------------------------------------------------------------

const board = byId("board"), brush = board.getContext("2d", { willReadFrequently: true });
let drawing = null, picture = null, stream = null;
const cursor = { x: 0.5, y: 0.5, down: false };

function report(text) { byId("error").textContent = text; }

function blank() {
  picture = null;
  board.classList.remove("picture");
  board.width = board.height = 336;
  brush.fillStyle = "#000";
  brush.fillRect(0, 0, board.width, board.height);
  brush.strokeStyle = brush.fillStyle = "#fff";
  brush.lineCap = brush.lineJoin = "round";
  brush.lineWidth = board.width / 14;
  byId("label").textContent = "–";
  byId("time").textContent = DRAWS ? "Draw something, or open a picture." : "Open a picture.";
  byId("bars").replaceChildren();
  byId("why").hidden = true;
  report("");
}

function current() {
  const { data } = brush.getImageData(0, 0, board.width, board.height);
  let pixels = rankwise.pixels(data, board.height, board.width);
  if (byId("invert").checked) pixels = pixels.map((v) => BLACK + WHITE - v);
  if (!picture && DRAWS && byId("centre").checked) {
    const grey = channelsOf(data, 1);
    const bytes = resized(centred(grey, board.width), [board.width, board.width], [ROWS, COLUMNS], 1);
    pixels = asFitted(bytes);
    if (byId("invert").checked) pixels = pixels.map((v) => BLACK + WHITE - v);
  }
  return pixels;
}

function answer() {
  const pixels = current(), begin = performance.now();
  const { probabilities } = rankwise.predict(pixels);
  const ms = performance.now() - begin;
  const order = probabilities.map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]);
  const best = order[0][1];
  byId("label").textContent = CLASSES[best];
  byId("time").textContent = `${(100 * order[0][0]).toFixed(1)}% sure, in ${ms.toFixed(1)} ms`;
  const shown = (CLASSES.length <= 12 ? probabilities.map((p, i) => [p, i]) : order.slice(0, 10));
  byId("bars").replaceChildren(...shown.map(([p, i]) => {
    const line = document.createElement("li");
    if (i === best) line.className = "best";
    const [name, track, share] = ["span", "div", "span"].map((tag) => document.createElement(tag));
    name.textContent = CLASSES[i];
    track.className = "track";
    const fill = track.appendChild(document.createElement("div"));
    fill.className = "fill";
    fill.style.width = `${100 * p}%`;
    share.className = "share";
    share.textContent = `${(100 * p).toFixed(1)}%`;
    line.append(name, track, share);
    return line;
  }));
  explain(pixels, best);
}

// -- why ----------------------------------------------------------------------------------------

// For each unit of the last layer, what it adds to the class beyond what it adds on average, and
// where: numbers over a grid of places. Null where the network's end has another form.
function contributions(pixels, best) {
  const seen = [], { ops } = network;
  network.run(pixels, seen);
  const last = ops.length - 1;
  if (ops[last].operation !== "Dense") return null;
  const [n, k] = ops[last].weight.shape, w = ops[last].weight.data, features = seen[last].data;
  const over = Float32Array.from({ length: n }, (_, i) => {
    let mean = 0;
    for (let j = 0; j < k; ++j) mean += w[i * k + j] / k;
    return w[i * k + best] - mean;
  });
  if (ops[last - 1]?.operation === "Flatten" && seen[last - 1].maps) {
    const pooled = ops[last - 2]?.operation === "Pool" && ops[last - 2].kind === "mean";
    const cells = seen[last - 1].shape, maps = pooled ? seen[last - 2] : seen[last - 1];
    const [channels, rows, columns] = maps.shape;
    const [down, across] = pooled ? ops[last - 2].stride : [1, 1];
    return Array.from({ length: channels }, (_, c) => {
      const place = new Float32Array(rows * columns);
      for (let y = 0; y < rows; ++y) for (let x = 0; x < columns; ++x) {
        const i = Math.floor(y / down), j = Math.floor(x / across);
        if (i >= cells[1] || j >= cells[2]) continue;
        const weight = over[(c * cells[1] + i) * cells[2] + j] / (down * across);
        place[y * columns + x] = weight * maps.data[(y * columns + x) * channels + c];
      }
      return { unit: c, total: place.reduce((a, b) => a + b, 0), place, rows, columns };
    });
  }
  if (last === 2 && ops[0].operation === "RankOneForms" && SHAPE.length <= 3) {
    const x = seen[0].data, factors = ops[0].factors, rank = factors[0].shape[0];
    return Array.from({ length: n }, (_, unit) => {
      const place = new Float32Array(ROWS * COLUMNS), total = over[unit] * features[unit];
      const sign = Math.sign(over[unit] * features[unit]);
      for (let r = 0; r < rank; ++r) for (let i = 0; i < x.length; ++i) {
        const at = SHAPE.length === 3 ? [Math.floor(i / CHANNELS / COLUMNS), Math.floor(i / CHANNELS) % COLUMNS, i % CHANNELS]
          : [Math.floor(i / COLUMNS), i % COLUMNS];
        const form = at.reduce((v, j, a) => v * factors[a].data[(r * n + unit) * SHAPE[a] + j], 1);
        place[at[0] * COLUMNS + at[1]] += sign * Math.abs(x[i] * form);
      }
      return { unit, total, place, rows: ROWS, columns: COLUMNS };
    });
  }
  return null;
}

function explain(pixels, best) {
  const found = PICTURES ? contributions(pixels, best) : null;
  byId("why").hidden = !found;
  if (!found) return;
  const order = [...found].sort((a, b) => Math.abs(b.total) - Math.abs(a.total)).slice(0, 5);
  const all = { ...found[0], place: found[0].place.map((_, i) => found.reduce((s, one) => s + one.place[i], 0)) };
  const total = found.reduce((s, one) => s + one.total, 0);
  const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(2);
  byId("reason").textContent = `The units of the last layer that weigh most for “${CLASSES[best]}”, and where: `
    + "orange speaks for it, blue against it, beside what they say for the average class.";
  const views = [[`all ${found.length} units`, total, all],
    ...order.map((one) => [`unit ${one.unit + 1}`, one.total, one])];
  byId("units").replaceChildren(...views.map(([name, value, one]) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    const title = document.createElement("b");
    title.textContent = name;
    caption.append(title, ` ${signed(value)}`);
    const view = overlay(pixels, one);
    view.setAttribute("role", "img");
    view.setAttribute("aria-label", `${name}, ${signed(value)} for ${CLASSES[best]}`);
    figure.append(view, caption);
    return figure;
  }));
}

// The image in grey, with a grid of numbers laid over it, smoothly between their places.
function overlay(pixels, { place, rows, columns }) {
  const view = document.createElement("canvas"), zoom = Math.max(1, Math.ceil(140 / Math.max(ROWS, COLUMNS)));
  view.width = COLUMNS * zoom;
  view.height = ROWS * zoom;
  const context = view.getContext("2d"), image = context.createImageData(view.width, view.height);
  const most = place.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  const value = (y, x) => place[Math.min(rows - 1, Math.max(0, y)) * columns + Math.min(columns - 1, Math.max(0, x))];
  for (let y = 0; y < view.height; ++y) for (let x = 0; x < view.width; ++x) {
    const v = ((y + 0.5) / view.height) * rows - 0.5, u = ((x + 0.5) / view.width) * columns - 0.5;
    const i = Math.floor(v), j = Math.floor(u), a = v - i, b = u - j;
    const here = (1 - a) * ((1 - b) * value(i, j) + b * value(i, j + 1))
      + a * ((1 - b) * value(i + 1, j) + b * value(i + 1, j + 1));
    const at = (Math.floor(y / zoom) * COLUMNS + Math.floor(x / zoom)) * CHANNELS;
    let grey = 0;
    for (let c = 0; c < CHANNELS; ++c) grey += (255 * (pixels[at + c] - BLACK)) / (WHITE - BLACK) / CHANNELS;
    const strength = 0.75 * Math.min(1, Math.abs(here) / most), colour = here > 0 ? [255, 140, 40] : [60, 140, 255];
    for (let c = 0; c < 3; ++c) {
      image.data[4 * (y * view.width + x) + c] = 0.8 * grey * (1 - strength) + colour[c] * strength;
    }
    image.data[4 * (y * view.width + x) + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return view;
}

// -- ways in ------------------------------------------------------------------------------------

function stroke(from, to) {
  if (picture) blank();
  brush.beginPath();
  brush.moveTo(from.x * board.width, from.y * board.height);
  brush.lineTo(to.x * board.width + 0.01, to.y * board.height);
  brush.stroke();
}

function placeOf(event) {
  const box = board.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
}

function show(source, width, height) {
  const shrink = Math.min(1, 2048 / Math.max(width, height));
  board.width = Math.max(1, Math.round(width * shrink));
  board.height = Math.max(1, Math.round(height * shrink));
  board.classList.add("picture");
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, board.width, board.height);
  brush.drawImage(source, 0, 0, board.width, board.height);
  picture = true;
  report("");
  answer();
}

async function open(file) {
  if (!file) return;
  try {
    const bitmap = await createImageBitmap(file);
    show(bitmap, bitmap.width, bitmap.height);
  } catch {
    report(`${file.name} isn't a picture that this browser reads; PNG and JPEG are.`);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("camera").hidden = true;
  board.hidden = false;
  byId("film").textContent = "Camera";
}

async function film() {
  const camera = byId("camera");
  if (stream) {
    // The middle square, as it is seen.
    const side = Math.min(camera.videoWidth, camera.videoHeight), cut = document.createElement("canvas");
    cut.width = cut.height = side;
    cut.getContext("2d").drawImage(camera, (camera.videoWidth - side) / 2, (camera.videoHeight - side) / 2,
      side, side, 0, 0, side, side);
    stopCamera();
    show(cut, side, side);
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    camera.srcObject = stream;
    board.hidden = true;
    camera.hidden = false;
    await camera.play();
    byId("film").textContent = "Take the photo";
  } catch {
    stopCamera();
    report("The browser gives no camera to this page.");
  }
}

if (DRAWS) {
  board.addEventListener("pointerdown", (event) => {
    board.setPointerCapture(event.pointerId);
    drawing = placeOf(event);
    stroke(drawing, drawing);
  });
  board.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const to = placeOf(event);
    stroke(drawing, to);
    drawing = to;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    board.addEventListener(end, () => { if (drawing) { drawing = null; answer(); } });
  }
  board.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === " ") { cursor.down = !cursor.down; stroke(cursor, cursor); answer(); }
    else if (event.key === "Delete" || event.key === "Backspace") { cursor.down = false; blank(); }
    else if (!step) return;
    event.preventDefault();
    if (!step) return;
    const to = {
      x: Math.min(0.95, Math.max(0.05, cursor.x + step[0] / 20)),
      y: Math.min(0.95, Math.max(0.05, cursor.y + step[1] / 20)),
    };
    if (cursor.down) { stroke(cursor, to); answer(); }
    Object.assign(cursor, to);
    byId("help").textContent = `Pen ${cursor.down ? "down" : "up"}, at ${Math.round(20 * cursor.x)}, ${Math.round(20 * cursor.y)} of 20.`;
  });
}
const stage = board.parentElement;
for (const kind of ["dragover", "dragleave", "drop"]) {
  stage.addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.toggle("over", kind === "dragover");
    if (kind === "drop") open(event.dataTransfer.files[0]);
  });
}
byId("clear").addEventListener("click", () => { stopCamera(); blank(); });
byId("pick").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => { stopCamera(); open(event.target.files[0]); event.target.value = ""; });
byId("film").addEventListener("click", film);
for (const id of ["centre", "invert"]) {
  byId(id).addEventListener("change", () => { if (byId("label").textContent !== "–") answer(); });
}
byId("film").hidden = !navigator.mediaDevices?.getUserMedia;
byId("centring").hidden = !DRAWS;
byId("centre").checked = DRAWS && ROWS === 28;
byId("help").textContent = DRAWS
  ? "Draw with a finger or the mouse; with keys, arrows move the pen, Space lowers and lifts it, Delete clears."
  : "";
if (!PICTURES) byId("help").textContent = `This model takes no pictures, but numbers of shape ${SHAPE.join(" × ")}: rankwise.predict(pixels).`;
for (const id of ["clear", "pick"]) byId(id).hidden = !PICTURES;
blank();
