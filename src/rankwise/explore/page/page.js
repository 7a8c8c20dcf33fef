// What the page shows first, and what opens what.

const SCORE = DATA.score, MATRIX = DATA.confusion, N_TEST = SCORE.n;
const [N_SHOWN] = DATA.sampled, SCORED = DATA.parts.at(-1) === "test" ? "test image" : "image";

function ofCell(truth, predicted) {
  const rows = [];
  for (let i = 0; i < IMAGES.n; ++i) {
    if (isScored(i) && IMAGES.truth[i] === truth && IMAGES.predicted[i] === predicted) rows.push(i);
  }
  return rows.sort((a, b) => share(b) - share(a));
}

function openCell(truth, predicted, n, button) {
  const rows = ofCell(truth, predicted), place = byId("cell");
  for (const other of document.querySelectorAll("#matrix [aria-pressed]")) other.setAttribute("aria-pressed", "false");
  button?.setAttribute("aria-pressed", "true");
  const what = truth === predicted ? `${CLASSES[truth]}, and recognised` : `${CLASSES[truth]} taken for ${CLASSES[predicted]}`;
  const fewer = rows.length < n ? `, of which this page holds ${count(rows.length)}` : "";
  place.replaceChildren(
    element("h3", { textContent: `${what}: ${counted(n, SCORED)}${fewer}` }),
    ...gallery(rows, (i) => card(i, { siblings: rows, caption: percent(share(i)) })),
  );
  place.hidden = false;
  byId("said").textContent = `${what}: ${counted(n, SCORED)}`;
}

function showMatrix() {
  const { classes, counts, totals } = MATRIX, table = byId("matrix");
  const long = classes.some((c) => CLASSES[c].length > 3);
  const head = element("tr", {}, element("th", { textContent: "true ↓ predicted →" }), classes.map((c) =>
    element("th", { scope: "col", className: long ? "turned" : "", title: CLASSES[c] }, element("span", { textContent: CLASSES[c] }))));
  const rows = counts.map((row, r) => element("tr", {},
    element("th", { scope: "row", textContent: CLASSES[classes[r]], title: CLASSES[classes[r]] }),
    row.map((n, c) => {
      const button = element("button", { type: "button", className: n === 0 ? "none" : r === c ? "right" : "wrong", textContent: count(n) });
      const of = totals[r] ? n / totals[r] : 0;
      // Errors are few, so their shade grows with the root of their share.
      button.style.setProperty("--share", `${n === 0 ? 0 : r === c ? 8 + 50 * of : 14 + 86 * Math.sqrt(Math.min(1, of))}%`);
      button.setAttribute("aria-label", `${CLASSES[classes[r]]} predicted as ${CLASSES[classes[c]]}: ${count(n)}`);
      button.setAttribute("aria-pressed", "false");
      button.title = `${CLASSES[classes[r]]} → ${CLASSES[classes[c]]}: ${count(n)} of ${count(totals[r])}`;
      if (n === 0) button.setAttribute("aria-disabled", "true");
      else button.addEventListener("click", () => openCell(classes[r], classes[c], n, button));
      return element("td", {}, button);
    })));
  if (classes.length > 12) table.classList.add("large");
  if (classes.length < 5) table.classList.add("few");
  table.append(element("thead", {}, head), element("tbody", {}, rows));
  withArrows(table, "button");
  roving(table, "button");
  const fewer = classes.length < CLASSES.length ? ` The ${classes.length} of ${count(CLASSES.length)} classes with the most errors.` : "";
  const drawn = N_SHOWN < N_TEST ? ` The counts are of all ${count(N_TEST)} images; the page holds ${count(N_SHOWN)} of them, the wrong ones first.` : "";
  byId("confusion-text").textContent = `Blue is right, orange is wrong. A cell opens its images; arrow keys go from cell to cell.${fewer}${drawn}`;
  const worst = byId("worst");
  worst.append(...MATRIX.pairs.map(([a, b, n]) => {
    const button = element("button", { type: "button" }, element("span", { textContent: `${CLASSES[a]} → ${CLASSES[b]}` }),
      element("span", { className: "count", textContent: count(n) }));
    button.addEventListener("click", () => { openCell(a, b, n); byId("cell").scrollIntoView({ block: "nearest" }); });
    return element("li", {}, button);
  }));
  if (!MATRIX.pairs.length) worst.append(element("li", {}, element("p", { className: "empty", textContent: "Nothing: all are right." })));
}

function showClasses() {
  const table = byId("by-class");
  const order = SCORE.by_class.map((_, c) => c).filter((c) => SCORE.by_class[c].n)
    .sort((a, b) => SCORE.by_class[a].right / SCORE.by_class[a].n - SCORE.by_class[b].right / SCORE.by_class[b].n);
  const low = Math.min(...order.map((c) => SCORE.by_class[c].low)), from = Math.max(0, Math.floor(low * 10) / 10);
  const at = (v) => `${(100 * (v - from)) / (1 - from)}%`;
  const row = (c) => {
    const { n, right, low, high } = SCORE.by_class[c], span = element("span"), mark = element("i");
    span.style.left = at(low);
    span.style.width = `${(100 * (high - low)) / (1 - from)}%`;
    mark.style.left = at(right / n);
    return element("tr", {}, element("th", { scope: "row", textContent: CLASSES[c], title: CLASSES[c] }), element("td", { textContent: count(n) }),
      element("td", { textContent: percent(right / n) }), element("td", { className: "soft", textContent: `${percent(low)}–${percent(high)}` }),
      element("td", { className: "bar" }, element("span", { className: "range" }, span, mark)));
  };
  const body = element("tbody", {}, order.slice(0, 30).map(row));
  table.append(element("thead", {}, element("tr", {}, ["class", "images", "right", "interval", `${percent(from, 0)} to 100%`].map((t) => element("th", { scope: "col", textContent: t })))), body);
  if (order.length > 30) {
    const more = element("button", { type: "button", textContent: `All ${count(order.length)} classes` });
    more.addEventListener("click", () => { body.append(...order.slice(30).map(row)); more.remove(); });
    table.parentElement.after(more);
  }
  const may = DATA.pairs.filter((p) => p.may);
  byId("pairs-text").textContent = may.length
    ? "Between the two, outputs that don't know the label are right little more often than by guessing: one class under two names, or too little to tell them apart by."
    : "No two stand out: what guessing gets is half, and these are told apart worst.";
  byId("pairs").append(...(may.length ? may : DATA.pairs.slice(0, 5)).map((p) => element("li", {}, element("div", { className: p.may ? "may" : "" },
    element("span", { textContent: `${CLASSES[p.classes[0]]} and ${CLASSES[p.classes[1]]}` }),
    element("span", { className: "count", textContent: `${percent(p.apart)} told apart` })))));
}

function showConfidence() {
  byId("reliability").append(reliabilityChart(SCORE.reliability, CLASSES.length));
  const mean = SCORE.reliability.reduce((s, b) => s + b.n * b.confidence, 0) / N_TEST, gap = mean - SCORE.accuracy;
  const tends = Math.abs(gap) < 0.01 ? "on the whole it is as sure as it should be" : gap > 0 ? `on the whole it is ${percent(gap)} too sure` : `on the whole it is ${percent(-gap)} too modest`;
  byId("reliability-text").textContent = `On the dashed line, confidence is as often right as it says; bars are numbers of images, lines 95% intervals. Expected calibration error ${SCORE.ece.toFixed(3)} (15 bins): ${tends}.`;
  byId("rejection").append(rejectionChart(SCORE.rejection));
  const tenth = [...SCORE.rejection].sort((a, b) => Math.abs(a.rejected - 0.1) - Math.abs(b.rejected - 0.1))[0];
  byId("rejection-text").textContent = tenth ? `If the ${percent(tenth.rejected, 0)} it is least sure of (under ${percent(tenth.least)}) go to a person, ${percent(tenth.accuracy, 2)} of the rest are right.` : "";
}

function showFindings() {
  const { labels, repeats, odd } = DATA.lists, found = [];
  const add = (to, tone, strong, soft) => found.push(element("li", {}, element("a", { href: `#${to}`, className: tone }, element("b", { textContent: strong }), element("span", { textContent: soft }))));
  if (MATRIX.pairs.length) {
    const [a, b, n] = MATRIX.pairs[0];
    add("confusion", "bad", `${CLASSES[a]} taken for ${CLASSES[b]}`, `the commonest mistake, ${count(n)} of ${count(N_TEST - SCORE.right)}`);
  }
  const weakest = SCORE.by_class.map((v, c) => [v.n ? v.right / v.n : 2, c]).sort((x, y) => x[0] - y[0])[0];
  add("classes", weakest[0] < 0.9 ? "bad" : "", `${CLASSES[weakest[1]]} is the weakest class`, `${percent(weakest[0])} of its ${count(SCORE.by_class[weakest[1]].n)} are right`);
  if (DATA.likely) add("labels", "open", `About ${counted(DATA.likely, "label is", "labels are")} wrong`, `so many more are improbable than chance brings; the other images are against ${count(labels.n)} in all`);
  else add("labels", "good", "No sign of wrong labels", labels.n ? `the other images are against ${count(labels.n)}, as chance brings` : "by the other images");
  const { exact, near } = DATA.across;
  if (exact) add("repeats", "alarm", `${counted(exact, "picture is", "pictures are")} in both parts`, "so the accuracy is partly of images it was trained on");
  else if (near) add("repeats", "open", `${counted(near, "picture is", "pictures are")} nearly the same in both parts`, "look whether they are the same ones");
  else add("repeats", repeats.n ? "open" : "good", repeats.n ? `${counted(DATA.nGroups, "picture is", "pictures are")} there twice` : "No picture is there twice", repeats.n ? "exactly or nearly" : "in this source");
  const may = DATA.pairs.filter((p) => p.may).length;
  if (may) add("classes", "alarm", `${counted(may, "pair")} of classes may be one`, "they can hardly be told apart");
  if (odd.n) add("odd", "open", `${counted(odd.n, "odd image")}`, "blank, of another kind, or far from all others");
  add("confidence", SCORE.ece > 0.05 ? "bad" : "good", SCORE.ece > 0.05 ? "Its confidence is off" : "Its confidence can be trusted", `expected calibration error ${SCORE.ece.toFixed(3)}`);
  byId("findings").append(...found);
}

function showSections() {
  const numbers = { mistakes: DATA.lists.mistakes.n, labels: DATA.likely, repeats: DATA.nGroups, odd: DATA.lists.odd.n };
  byId("sections").append(...Array.from(document.querySelectorAll("main > section"), (section) => {
    const n = numbers[section.id];
    return element("li", {}, element("a", { href: `#${section.id}` }, section.dataset.name, n === undefined ? "" : element("small", { textContent: ` ${count(n)}` })));
  }));
}

byId("labels-text").textContent = DATA.parts.length > 1
  ? "For each image, an output of a last layer that was fitted without it (in closed form, exactly): where that speaks against the label, the label may be wrong, or the image is hard. The most suspicious first; look before you leave any out. Test images are listed too, and stay: what tests a model isn't chosen."
  : "Images whose outputs speak against their labels, the most suspicious first.";
byId("repeats-text").textContent = DATA.parts.length > 1
  ? "The same pixels, or nearly the same in small (other sizes, brightness or compression). A picture in both parts makes the accuracy look better than it is."
  : "The same pixels, or nearly the same in small (other sizes, brightness or compression).";
byId("basket-command").textContent = spelled(DATA.command);
byId("save").addEventListener("click", saveBasket);
byId("empty").addEventListener("click", () => { basket.clear(); showBasket(); });
byId("detail").addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLSelectElement) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  step(by);
});
byId("detail").addEventListener("click", (event) => { if (event.target === byId("detail")) byId("detail").close(); });
byId("detail").addEventListener("close", () => opened.from?.focus());

showSections();
showFindings();
showMatrix();
showList("mistakes");
showList("unsure");
showList("labels", ([i, reason]) => [element("b", { textContent: CLASSES[IMAGES.truth[i]] }), `, ${reason}`, ...(partOf(i) === "train" ? [] : [" (test)"])]);
showGroups();
showList("odd", ([i, reason]) => [element("b", { textContent: CLASSES[IMAGES.truth[i]] }), ` ${reason}`]);
showClasses();
showConfidence();
