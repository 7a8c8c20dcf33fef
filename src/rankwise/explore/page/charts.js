// Two charts as SVG; their colours are the page's, so they work in dark and light.

const CHART = { width: 400, height: 290, left: 60, right: 24, top: 14, bottom: 44 };

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.flat());
  return made;
}

// Axes from low to high with their ticks, and what turns values into places.
function axes(label, x, y) {
  const { width, height, left, right, top, bottom } = CHART;
  const atX = (v) => left + ((v - x.low) / (x.high - x.low)) * (width - left - right);
  const atY = (v) => height - bottom - ((v - y.low) / (y.high - y.low)) * (height - top - bottom);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
  for (const tick of ticks(y)) {
    chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: atY(tick), y2: atY(tick) }));
    chart.append(svg("text", { x: left - 6, y: atY(tick) + 4, "text-anchor": "end" }, shown(tick, y)));
  }
  for (const tick of ticks(x)) {
    chart.append(svg("text", { x: atX(tick), y: height - bottom + 17, "text-anchor": "middle" }, shown(tick, x)));
  }
  chart.append(svg("text", { class: "title", x: (left + width - right) / 2, y: height - 7, "text-anchor": "middle" }, x.title));
  chart.append(svg("text", { class: "title", x: 0, y: 0, transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.title));
  return { chart, atX, atY };
}

function ticks({ low, high }) {
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25].find((s) => (high - low) / s <= 5.01) ?? 0.5;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; ++k) found.push(k * step);
  return found;
}
const shown = (v, { low, high }) => `${(100 * v).toFixed(high - low < 0.03 ? 1 : 0)}%`;

function reliabilityChart(bins, classes) {
  const chance = Math.floor(10 / classes) / 10, low = Math.min(chance, ...bins.map((b) => b.from), ...bins.map((b) => Math.floor(10 * b.accuracy) / 10));
  const { chart, atX, atY } = axes("Accuracy by confidence", { low, high: 1, title: "confidence" }, { low, high: 1, title: "right" });
  const most = Math.max(...bins.map((b) => b.n)), floor = CHART.height - CHART.bottom;
  for (const b of bins) {
    const height = (b.n / most) * 70;
    chart.append(svg("rect", { class: "bars", x: atX(b.from) + 1, width: atX(b.to) - atX(b.from) - 2, y: floor - height, height }));
  }
  chart.append(svg("line", { class: "ideal", x1: atX(low), y1: atY(low), x2: atX(1), y2: atY(1) }));
  for (const b of bins) {
    chart.append(svg("line", { class: "whisker", x1: atX(b.confidence), x2: atX(b.confidence), y1: atY(Math.max(low, b.low)), y2: atY(b.high) }));
  }
  chart.append(svg("path", { class: "line", d: bins.map((b, k) => `${k ? "L" : "M"}${atX(b.confidence)} ${atY(b.accuracy)}`).join("") }));
  for (const b of bins) {
    chart.append(svg("circle", { class: "dot", cx: atX(b.confidence), cy: atY(b.accuracy), r: 4 },
      svg("title", {}, `${counted(b.n, "image")}: ${percent(b.confidence)} sure, ${percent(b.accuracy)} right`)));
  }
  return chart;
}

function rejectionChart(points) {
  const lowest = Math.min(...points.map((p) => p.accuracy)), low = Math.max(0, lowest - (1 - lowest) * 0.15 - 0.002);
  const { chart, atX, atY } = axes("Accuracy against rejection", { low: 0, high: 1, title: "left to a person" }, { low, high: 1, title: "right among the rest" });
  const line = [...points].sort((a, b) => a.rejected - b.rejected);
  chart.append(svg("path", { class: "line", d: line.map((p, k) => `${k ? "L" : "M"}${atX(p.rejected)} ${atY(p.accuracy)}`).join("") }));
  return chart;
}
