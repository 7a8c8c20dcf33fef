"use strict";
// A network as a list of operations on one image. Values are {shape, data}; maps have the shape
// [channels, rows, columns] and lie row by row, the channels of a place together.

function decodedArrays(about, text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const half = (h) => {
    const exponent = (h >> 10) & 31, fraction = h & 1023;
    const size = exponent ? (fraction + 1024) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    return h & 0x8000 ? -size : size;
  };
  const read = {
    f4: [4, (at) => view.getFloat32(at, true)],
    f2: [2, (at) => half(view.getUint16(at, true))],
    i1: [1, (at) => view.getInt8(at)],
  };
  const arrays = {};
  for (const [name, { kind, shape, offset, scales }] of Object.entries(about)) {
    const [size, number] = read[kind];
    const n = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: n }, (_, i) => number(offset + i * size));
    if (scales) {
      const along = arrays[scales];
      for (let i = 0; i < n; ++i) {
        let rest = i, at = 0, step = 1;
        for (let a = shape.length - 1; a >= 0; --a) {
          const j = rest % shape[a];
          rest = (rest - j) / shape[a];
          if (along.shape[a] > 1) at += j * step;
          step *= along.shape[a];
        }
        data[i] = Math.fround(data[i] * along.data[at]);
      }
    }
    arrays[name] = { shape, data };
  }
  return arrays;
}

// The error function to 1.2e-7 (W. J. Cody's idea in the form of Numerical Recipes, 6.2).
function erf(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const p = [1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
    -0.82215223, 0.17087277];
  const value = 1 - t * Math.exp(-x * x - 1.26551223 + t * p.reduceRight((s, c) => c + t * s, 0));
  return x < 0 ? -value : value;
}

class Network {
  constructor(description, text) {
    this.about = description;
    const arrays = decodedArrays(description.arrays, text);
    const filled = (value) => {
      if (Array.isArray(value)) return value.map(filled);
      if (value === null || typeof value !== "object") return value;
      if ("tensor" in value) return arrays[value.tensor];
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, filled(v)]));
    };
    this.ops = filled(description.ops);
  }

  // Logits and probabilities of pixels as the model takes them; `seen` gets each value on the way.
  run(pixels, seen = null) {
    const { image_shape: shape, scale, output } = this.about;
    const data = Float32Array.from(pixels, (v) => Math.fround(v / scale));
    const logits = this.through(this.ops, { shape, data, maps: false }, seen).data;
    return { logits, probabilities: probabilitiesOf(logits, output) };
  }

  through(ops, value, seen = null) {
    for (const op of ops) {
      if (seen) seen.push(value);
      value = this[op.operation](op, value);
    }
    if (seen) seen.push(value);
    return value;
  }

  ToMaps(op, { shape, data }) {
    const [rows, columns, channels] = shape.length === 2 ? [...shape, 1] : shape;
    return { shape: [channels, rows, columns], data, maps: true };
  }

  Flatten(op, { shape, data, maps }) {
    if (!maps) return { shape: [data.length], data, maps: false };
    const [channels, rows, columns] = shape, size = rows * columns;
    const out = new Float32Array(data.length);
    for (let i = 0; i < size; ++i) {
      for (let c = 0; c < channels; ++c) out[c * size + i] = data[i * channels + c];
    }
    return { shape: [out.length], data: out, maps: false };
  }

  Square(op, value) {
    return { ...value, data: value.data.map((x) => x * x) };
  }

  Activate(op, value) {
    return { ...value, data: value.data.map(ACTIVATIONS[op.name]) };
  }

  Affine(op, value) {
    const { shape, data, maps } = value, inner = data.length / shape[0];
    const scale = op.scale.data, shift = op.shift.data;
    return {
      ...value,
      data: data.map((x, i) => {
        const c = maps ? i % shape[0] : Math.floor(i / inner);
        return x * scale[c] + shift[c];
      }),
    };
  }

  Dense(op, { data }) {
    const [n, k] = op.weight.shape, out = Float64Array.from(op.bias.data), w = op.weight.data;
    for (let i = 0; i < n; ++i) for (let j = 0; j < k; ++j) out[j] += data[i] * w[i * k + j];
    return { shape: [k], data: Float32Array.from(out), maps: false };
  }

  Pool(op, { shape, data }) {
    const [channels, rows, columns] = shape, [height, width] = op.size, [down, across] = op.stride;
    const high = Math.floor((rows - height) / down) + 1;
    const wide = Math.floor((columns - width) / across) + 1;
    const mean = op.kind === "mean", out = new Float32Array(high * wide * channels);
    for (let y = 0; y < high; ++y) for (let x = 0; x < wide; ++x) for (let c = 0; c < channels; ++c) {
      let pooled = mean ? 0 : -Infinity;
      for (let a = 0; a < height; ++a) for (let b = 0; b < width; ++b) {
        const v = data[((y * down + a) * columns + x * across + b) * channels + c];
        pooled = mean ? pooled + v : Math.max(pooled, v);
      }
      out[(y * wide + x) * channels + c] = mean ? pooled / (height * width) : pooled;
    }
    return { shape: [channels, high, wide], data: out, maps: true };
  }

  // The forms of all units, one axis after the other: channels at each place, columns, rows.
  ConvolveForms(op, { shape, data }) {
    const [channels, rows, columns] = shape, [units, rank] = op.channel.shape;
    const height = op.row.shape[2], width = op.column.shape[2], m = units * rank;
    const [down, across] = op.stride, [above, left] = op.padding;
    op.mixing ??= transposed(op.channel, units, rank);
    op.rows ??= transposed(op.row, units, rank);
    op.columns ??= transposed(op.column, units, rank);
    const mixed = new Float32Array(rows * columns * m);
    for (let p = 0; p < rows * columns; ++p) for (let c = 0; c < channels; ++c) {
      const v = data[p * channels + c], from = c * m, to = p * m;
      if (v !== 0) for (let o = 0; o < m; ++o) mixed[to + o] += v * op.mixing[from + o];
    }
    const wide = Math.floor((columns + 2 * left - width) / across) + 1;
    const high = Math.floor((rows + 2 * above - height) / down) + 1;
    const summed = new Float32Array(rows * wide * m);
    for (let y = 0; y < rows; ++y) for (let x = 0; x < wide; ++x) for (let k = 0; k < width; ++k) {
      const at = x * across + k - left;
      if (at < 0 || at >= columns) continue;
      const from = (y * columns + at) * m, to = (y * wide + x) * m, v = k * m;
      for (let o = 0; o < m; ++o) summed[to + o] += op.columns[v + o] * mixed[from + o];
    }
    const out = new Float32Array(high * wide * units);
    for (let y = 0; y < high; ++y) for (let x = 0; x < wide; ++x) {
      const to = (y * wide + x) * units;
      for (let o = 0; o < units; ++o) out[to + o] = op.bias.data[o];
      for (let k = 0; k < height; ++k) {
        const at = y * down + k - above;
        if (at < 0 || at >= rows) continue;
        for (let r = 0; r < rank; ++r) {
          const from = (at * wide + x) * m + r * units, u = k * m + r * units;
          for (let o = 0; o < units; ++o) out[to + o] += op.rows[u + o] * summed[from + o];
        }
      }
    }
    return { shape: [units, high, wide], data: out, maps: true };
  }

  Convolve(op, { shape, data }) {
    const [channels, rows, columns] = shape, [units, per, height, width] = op.weight.shape;
    const [down, across] = op.stride, [above, left] = op.padding, w = op.weight.data;
    const wide = Math.floor((columns + 2 * left - width) / across) + 1;
    const high = Math.floor((rows + 2 * above - height) / down) + 1;
    const out = new Float32Array(high * wide * units), group = units / op.groups;
    for (let y = 0; y < high; ++y) for (let x = 0; x < wide; ++x) for (let o = 0; o < units; ++o) {
      let sum = op.bias.data[o];
      const first = Math.floor(o / group) * per;
      for (let a = 0; a < height; ++a) for (let b = 0; b < width; ++b) {
        const i = y * down + a - above, j = x * across + b - left;
        if (i < 0 || i >= rows || j < 0 || j >= columns) continue;
        const from = (i * columns + j) * channels + first;
        for (let c = 0; c < per; ++c) sum += data[from + c] * w[((o * per + c) * height + a) * width + b];
      }
      out[(y * wide + x) * units + o] = sum;
    }
    return { shape: [units, high, wide], data: out, maps: true };
  }

  RankOneForms(op, value) {
    const units = op.bias.data.length, rank = op.factors[0].shape[0];
    const strides = stridesOf(value), sides = value.shape;
    const sum = (unit, r, axis, at) => {
      if (axis === sides.length) return value.data[at];
      let total = 0;
      const v = op.factors[axis].data, first = (r * units + unit) * sides[axis];
      for (let j = 0; j < sides[axis]; ++j) {
        if (v[first + j] !== 0) total += v[first + j] * sum(unit, r, axis + 1, at + j * strides[axis]);
      }
      return total;
    };
    const out = Float32Array.from(op.bias.data, (bias, unit) => {
      let q = bias;
      for (let r = 0; r < rank; ++r) q += sum(unit, r, 0, 0);
      return q;
    });
    return { shape: [units], data: out, maps: false };
  }

  Multiply(op, value) {
    const left = this.through(op.left, value), right = this.through(op.right, value);
    return { ...left, data: left.data.map((v, i) => v * right.data[i]) };
  }

  Add(op, value) {
    const left = this.through(op.left, value), right = this.through(op.right, value);
    return { ...left, data: left.data.map((v, i) => v + right.data[i]) };
  }

  Concatenate(op, value) {
    const parts = op.branches.map((branch) => this.through(branch, value));
    const channels = parts.reduce((n, part) => n + part.shape[0], 0);
    const shape = [channels, ...parts[0].shape.slice(1)], maps = parts[0].maps;
    const places = maps ? shape[1] * shape[2] : 1;
    const out = new Float32Array(shape.reduce((a, b) => a * b, 1));
    let first = 0;
    for (const { data } of parts) {
      const n = data.length / places;
      for (let p = 0; p < places; ++p) out.set(data.subarray(p * n, (p + 1) * n), p * (out.length / places) + first);
      first += n;
    }
    return { shape, data: out, maps };
  }
}

// Vectors [units, rank, n] as [n][rank][units].
function transposed({ shape, data }, units, rank) {
  const n = shape[2], out = new Float32Array(data.length);
  for (let o = 0; o < units; ++o) for (let r = 0; r < rank; ++r) for (let k = 0; k < n; ++k) {
    out[(k * rank + r) * units + o] = data[(o * rank + r) * n + k];
  }
  return out;
}

function stridesOf({ shape, maps }) {
  if (maps) return [1, shape[2] * shape[0], shape[0]];
  return shape.map((_, a) => shape.slice(a + 1).reduce((x, y) => x * y, 1));
}

function probabilitiesOf(logits, output) {
  const k = logits.length;
  let positive;
  if (output === "softmax") {
    const most = Math.max(...logits);
    positive = Array.from(logits, (v) => Math.exp(v - most));
  } else {
    const shift = (1 - logits.reduce((a, b) => a + b, 0)) / k;
    const sigmoid = (v) => 1 / (1 + Math.exp(-v));
    const smooth = (v) => 0.5 * (v + Math.sqrt(v * v + SMOOTHING * SMOOTHING));
    positive = Array.from(logits, (v) => (output === "sigmoid" ? sigmoid : smooth)(v + shift));
  }
  const total = positive.reduce((a, b) => a + b, 0);
  return positive.map((v) => v / total);
}
