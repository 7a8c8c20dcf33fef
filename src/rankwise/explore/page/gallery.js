// Rows of pictures, lists of them with ticks, and the basket of what a training leaves out.

const basket = new Map(); // index of an image -> [list, reason, suggested, score]
const FIRST = 24, MORE = 72;

// One picture with its caption; `tick` = [list, entry] gives it a box.
function card(i, { caption, tick, siblings }) {
  const canvas = element("canvas", { width: THUMB_WIDTH, height: THUMB_HEIGHT });
  const button = element("button", { type: "button", className: IS_SMALL ? "thumb" : "thumb smooth" }, canvas);
  button.setAttribute("aria-label", `${nameOf(i)}: ${CLASSES[IMAGES.truth[i]]}, predicted ${CLASSES[IMAGES.predicted[i]]} ${percent(share(i), 0)}`);
  button.addEventListener("click", () => openDetail(i, siblings, button));
  drawn.observe(canvas);
  canvas.dataset.image = i;
  const figure = element("figure", {}, button, element("figcaption", {}, caption ?? verdictOf(i)));
  if (tick && partOf(i) === "train") figure.append(tickBox(i, tick));
  return figure;
}

function verdictOf(i) {
  const truth = element("b", { textContent: CLASSES[IMAGES.truth[i]] });
  if (isRight(i)) return [truth, ` ${percent(share(i), 0)}`];
  return [truth, " → ", element("i", { textContent: CLASSES[IMAGES.predicted[i]] }), ` ${percent(share(i), 0)}`];
}

function tickBox(i, [list, entry]) {
  const box = element("input", { type: "checkbox", checked: basket.has(i) });
  box.dataset.tick = i;
  box.addEventListener("change", () => {
    if (box.checked) basket.set(i, [list, ...entry]);
    else basket.delete(i);
    showBasket();
  });
  return element("label", {}, box, "leave out");
}

// Thumbnails are drawn when they come near the screen.
const drawn = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    drawn.unobserve(target);
    drawThumb(target, Number(target.dataset.image));
  }
}, { rootMargin: "600px" });

// Arrow keys go from picture to picture, and lines up and down.
function withArrows(container, selector) {
  container.addEventListener("keydown", (event) => {
    const all = Array.from(container.querySelectorAll(selector)), at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const top = (e) => Math.round(e.getBoundingClientRect().top);
    const across = Math.max(1, all.filter((e) => top(e) === top(all[0])).length);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: all.length - 1 - at }[event.key];
    if (step === undefined || !all[at + step]) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    all[at + step].tabIndex = 0;
    all[at + step].focus();
  });
}

function roving(container, selector) {
  Array.from(container.querySelectorAll(selector)).forEach((e, k) => { e.tabIndex = k ? -1 : 0; });
}

// Pictures, the first few at once; gives [gallery, controls].
function gallery(entries, make, extra = []) {
  const place = element("div", { className: "gallery" }), controls = element("div", { className: "controls" });
  const more = element("button", { type: "button" });
  let done = 0;
  const add = (n) => {
    place.append(...entries.slice(done, done + n).map(make));
    done = Math.min(entries.length, done + n);
    more.hidden = done >= entries.length;
    more.textContent = `Show ${count(Math.min(MORE, entries.length - done))} more of ${count(entries.length)}`;
    roving(place, ".thumb");
  };
  more.addEventListener("click", () => add(MORE));
  add(FIRST);
  withArrows(place, ".thumb");
  controls.append(more, ...extra);
  controls.hidden = more.hidden && !extra.length;
  return [place, controls];
}

function takeButton(list, entries) {
  const wanted = entries.filter((e) => e[4]);
  if (!wanted.length) return [];
  const button = element("button", { type: "button", textContent: wanted.length === 1 ? "Leave out the one suggested" : `Leave out the ${count(wanted.length)} suggested` });
  button.addEventListener("click", () => {
    for (const [i, reason, score, suggested] of wanted) basket.set(i, [list, reason, suggested, score]);
    showBasket();
  });
  return [button];
}

function showList(name, captionOf) {
  const place = document.querySelector(`[data-list="${name}"]`), { n, entries } = DATA.lists[name];
  if (!entries.length) {
    place.append(element("p", { className: "empty", textContent: "None." }));
    return;
  }
  const siblings = entries.map(([i]) => i);
  const ticked = name !== "mistakes" && name !== "unsure";
  const make = (e) => card(e[0], { caption: captionOf?.(e), siblings, tick: ticked ? [name, [e[1], e[3], e[2]]] : null });
  place.append(...gallery(entries, make, ticked ? takeButton(name, entries) : []));
  if (n > entries.length) {
    place.append(element("p", { className: "soft", textContent: `The first ${count(entries.length)} of ${count(n)}; rankwise explore --list list.csv writes all.` }));
  }
}

function showGroups() {
  const place = byId("groups"), entries = DATA.lists.repeats.entries, known = new Map(entries.map((e) => [e[0], e]));
  if (!DATA.groups.length) {
    place.append(element("p", { className: "empty", textContent: "No picture is there twice." }));
    return;
  }
  const box = (rows) => {
    const reason = known.get(rows[0])?.[1] ?? "";
    const group = element("div", { className: "group" + (reason.includes("both parts") ? " across" : "") }, element("p", { textContent: reason }));
    const inside = element("div", { className: "gallery" }, rows.slice(0, 8).map((i) => {
      const e = known.get(i) ?? [i, reason, 0, "", 0];
      return card(i, {
        siblings: rows, tick: ["repeats", [e[1], e[3], e[2]]],
        caption: [element("b", { textContent: CLASSES[IMAGES.truth[i]] }), ` ${partOf(i)}`],
      });
    }));
    group.append(inside);
    withArrows(inside, ".thumb");
    roving(inside, ".thumb");
    return group;
  };
  let done = 0;
  const more = element("button", { type: "button" }), list = element("div");
  const add = () => {
    list.append(...DATA.groups.slice(done, done + 12).map(box));
    done = Math.min(DATA.groups.length, done + 12);
    more.hidden = done >= DATA.groups.length;
    more.textContent = `Show more of ${count(DATA.groups.length)}`;
  };
  more.addEventListener("click", add);
  add();
  place.append(list, element("div", { className: "controls" }, more, ...takeButton("repeats", entries)));
}

// -- the basket ---------------------------------------------------------------------------------

function csvCell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

function basketAsCsv() {
  const lines = [["image", "leave", "part", "label", "list", "reason", "suggested", "score"]];
  for (const [i, [list, reason, suggested, score]] of basket) {
    lines.push([IMAGES.names[i], "yes", partOf(i), RAW_CLASSES[IMAGES.truth[i]], list, reason, suggested, score]);
  }
  return lines.map((line) => line.map(csvCell).join(",") + "\r\n").join("");
}

function showBasket() {
  byId("basket").hidden = basket.size === 0;
  byId("basket-count").textContent = counted(basket.size, "image");
  byId("basket-text").textContent = "to leave out of the next training";
  for (const box of document.querySelectorAll("[data-tick]")) box.checked = basket.has(Number(box.dataset.tick));
  byId("said").textContent = `${counted(basket.size, "image")} to leave out`;
}

function saveBasket() {
  const link = element("a", { download: "list.csv" });
  link.href = URL.createObjectURL(new Blob([basketAsCsv()], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
