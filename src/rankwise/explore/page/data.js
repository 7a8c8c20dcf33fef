// What was found, decoded: arrays of the images in the page, and their pictures.

const DATA = JSON.parse(byId("data").textContent);
const CLASSES = DATA.classes.map(spelled);
const RAW_CLASSES = DATA.classes;

function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
const unpacked = (text, Kind) => new Kind(bytesOf(text).buffer);

const IMAGES = {
  n: DATA.images.n,
  per: DATA.images.per,
  names: DATA.images.names,
  part: unpacked(DATA.images.part, Uint8Array),
  truth: unpacked(DATA.images.truth, Uint16Array),
  predicted: unpacked(DATA.images.predicted, Uint16Array),
  top: unpacked(DATA.images.top, Uint16Array),
  shares: unpacked(DATA.images.shares, Uint16Array),
};
const share = (i, j = 0) => IMAGES.shares[i * IMAGES.per + j] / 65535;
const topClass = (i, j) => IMAGES.top[i * IMAGES.per + j];
const isRight = (i) => IMAGES.truth[i] === IMAGES.predicted[i];
const partOf = (i) => DATA.parts[IMAGES.part[i]];
const isScored = (i) => IMAGES.part[i] === DATA.parts.length - 1;
const nameOf = (i) => spelled(IMAGES.names[i]);

const percent = (v, digits = 1) => `${(100 * v).toFixed(digits)}%`;
const count = (n) => n.toLocaleString("en");
const counted = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

// -- pictures -----------------------------------------------------------------------------------

const SHEETS = DATA.sheets, loadedSheets = new Map();
const [THUMB_HEIGHT, THUMB_WIDTH] = SHEETS.size;
const IS_SMALL = Math.max(...SHEETS.size) <= 40;

function pictureOf(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  return image.decode().then(() => image);
}

function sheetOf(number) {
  if (!loadedSheets.has(number)) loadedSheets.set(number, pictureOf(SHEETS.files[number]));
  return loadedSheets.get(number);
}

// Draw the thumbnail of an image on a canvas of its own size.
async function drawThumb(canvas, i) {
  const sheet = await sheetOf(Math.floor(i / SHEETS.per)), at = i % SHEETS.per;
  const y = Math.floor(at / SHEETS.across) * SHEETS.cell[0], x = (at % SHEETS.across) * SHEETS.cell[1];
  canvas.width = THUMB_WIDTH;
  canvas.height = THUMB_HEIGHT;
  canvas.getContext("2d").drawImage(sheet, x, y, THUMB_WIDTH, THUMB_HEIGHT, 0, 0, THUMB_WIDTH, THUMB_HEIGHT);
}

// The largest picture of an image that there is, on a canvas of its own size.
async function drawLarge(canvas, i) {
  const text = DATA.pictures[i];
  if (text === undefined) return drawThumb(canvas, i);
  const picture = await pictureOf(text);
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  canvas.getContext("2d").drawImage(picture, 0, 0);
}
