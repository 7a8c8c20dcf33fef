"use strict";
// Pictures as the model takes them: the same conversions and the same filter as in training.

// RGBA bytes to grey or RGB bytes; grey by the weights of Pillow, in its whole numbers.
function channelsOf(rgba, channels) {
  const n = rgba.length / 4, out = new Uint8Array(n * channels);
  for (let i = 0; i < n; ++i) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 1) out[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else out.set([r, g, b], 3 * i);
  }
  return out;
}

// Pillow's bilinear filter, which averages when it shrinks: columns first, then rows.
function resized(pixels, [height, width], [high, wide], channels) {
  const weights = (from, to) => {
    const scale = from / to, support = Math.max(scale, 1);
    return Array.from({ length: to }, (_, i) => {
      const center = (i + 0.5) * scale;
      const first = Math.max(0, Math.floor(center - support + 0.5));
      const last = Math.min(from, Math.floor(center + support + 0.5));
      const w = [];
      for (let j = first; j < last; ++j) w.push(Math.max(0, 1 - Math.abs((j + 0.5 - center) / support)));
      const total = w.reduce((a, b) => a + b, 0);
      return { first, w: w.map((v) => v / total) };
    });
  };
  const pass = (source, lines, along, plan) => {
    const out = new Uint8Array(lines.count * plan.length * channels);
    for (let l = 0; l < lines.count; ++l) plan.forEach(({ first, w }, i) => {
      for (let c = 0; c < channels; ++c) {
        let sum = 0;
        for (let j = 0; j < w.length; ++j) sum += w[j] * source[l * lines.step + (first + j) * along + c];
        out[l * lines.outStep + i * lines.outAlong + c] = Math.min(255, Math.max(0, Math.floor(sum + 0.5)));
      }
    });
    return out;
  };
  let out = pixels;
  if (width !== wide) {
    const lines = { count: height, step: width * channels, outStep: wide * channels, outAlong: channels };
    out = pass(out, lines, channels, weights(width, wide));
  }
  if (height !== high) {
    const lines = { count: wide, step: channels, outStep: channels, outAlong: wide * channels };
    out = pass(out, lines, wide * channels, weights(height, high));
  }
  return out;
}

// A drawing as MNIST's digits were made: 20 of 28 pixels high or wide, its centre of mass in the middle.
function centred(grey, side) {
  let top = side, bottom = -1, left = side, right = -1;
  for (let y = 0; y < side; ++y) for (let x = 0; x < side; ++x) if (grey[y * side + x] > 0) {
    top = Math.min(top, y); bottom = Math.max(bottom, y);
    left = Math.min(left, x); right = Math.max(right, x);
  }
  if (bottom < 0) return grey;
  const size = [bottom - top + 1, right - left + 1], cut = new Uint8Array(size[0] * size[1]);
  for (let y = 0; y < size[0]; ++y) for (let x = 0; x < size[1]; ++x) {
    cut[y * size[1] + x] = grey[(y + top) * side + x + left];
  }
  const scale = (side * 20) / 28 / Math.max(...size);
  const to = size.map((n) => Math.max(1, Math.round(n * scale)));
  const small = resized(cut, size, to, 1);
  let mass = 0, my = 0, mx = 0;
  small.forEach((v, i) => { mass += v; my += v * Math.floor(i / to[1]); mx += v * (i % to[1]); });
  const dy = Math.round(side / 2 - my / mass - 0.5), dx = Math.round(side / 2 - mx / mass - 0.5);
  const out = new Uint8Array(side * side);
  small.forEach((v, i) => {
    const y = Math.floor(i / to[1]) + dy, x = (i % to[1]) + dx;
    if (y >= 0 && y < side && x >= 0 && x < side) out[y * side + x] = v;
  });
  return out;
}
