// Low-rank approximation of one image in the browser, in double precision, from its singular
// vectors: A_k = U_k (U_kᵀ A), or A − U_d (U_dᵀ A) where fewer are dropped than kept.

const FORWARD = DATA.luma_chroma, BACK = DATA.from_luma_chroma;

function decoded(text, kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new kind(bytes.buffer);
}

// Of halves the even one, as numpy rounds.
function rint(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

class LowRank {
  constructor(data) {
    [this.rows, this.columns, this.colours] = data.shape;
    this.data = data;
    this.pixels = decoded(data.pixels, Uint8Array); // row by row, channels together
    this.groups = {};
  }

  // The matrices of a choice of channels, each {rows, columns, values, vectors, weights, sigma}.
  matrices(channels) {
    const name = { own: "own", shared: "own", "luma-chroma": "luma-chroma", joint: "joint" }[channels];
    if (!this.groups[name]) {
      const planes = this.planes(name);
      this.groups[name] = this.data.groups[name].map((given, i) => ({
        ...planes[i], sigma: given.sigma, ...this.vectors(planes[i], given),
      }));
    }
    return this.groups[name];
  }

  planes(name) {
    const { rows, columns, colours, pixels } = this, n = rows * columns;
    const plane = (value) => Float64Array.from({ length: n }, (_, i) => value(i));
    if (name === "joint") {
      const values = new Float64Array(n * colours);
      for (let y = 0; y < rows; y++) for (let c = 0; c < colours; c++) for (let x = 0; x < columns; x++) {
        values[(y * colours + c) * columns + x] = pixels[(y * columns + x) * colours + c];
      }
      return [{ rows, columns: columns * colours, values }];
    }
    const mixed = name === "luma-chroma" && colours === 3;
    return Array.from({ length: colours }, (_, c) => ({
      rows, columns,
      values: plane((i) => (mixed
        ? FORWARD[c][0] * pixels[3 * i] + FORWARD[c][1] * pixels[3 * i + 1] + FORWARD[c][2] * pixels[3 * i + 2]
        : pixels[colours * i + c])),
    }));
  }

  // Vectors of the shorter side, one after another, and what the matrix gives along each.
  vectors({ rows, columns, values }, given) {
    const left = rows <= columns, side = left ? rows : columns, other = left ? columns : rows;
    const vectors = decoded(given.vectors, Float64Array), count = given.sigma.length;
    const weights = new Float64Array(count * other);
    for (let i = 0; i < count; i++) for (let s = 0; s < side; s++) {
      const v = vectors[i * side + s];
      if (left) for (let o = 0; o < other; o++) weights[i * other + o] += v * values[s * columns + o];
      else for (let o = 0; o < other; o++) weights[i * other + o] += v * values[o * columns + s];
    }
    return { left, vectors, weights };
  }

  fractions(sigma, energyOf) {
    let sum = 0;
    const sums = sigma.map((s) => (sum += energyOf === "sigma" ? s : s * s));
    return sums.map((s) => (sum > 0 ? s / sum : 1));
  }

  // Curves of energy by rank, of each matrix or, of a shared rank, their mean.
  curves({ channels, energyOf }) {
    const all = this.matrices(channels).map(({ sigma }) => this.fractions(sigma, energyOf));
    if (channels !== "shared" || all.length === 1) return all;
    return [all[0].map((_, k) => all.reduce((sum, curve) => sum + curve[k], 0) / all.length)];
  }

  ranks(energy, options) {
    const found = this.curves(options).map((curve) => {
      if (energy === 1) return curve.length;
      if (options.rankRule === "reach") {
        const k = curve.findIndex((share) => share >= energy);
        return k < 0 ? curve.length : k + 1;
      }
      let best = 0;
      curve.forEach((share, k) => {
        if (Math.abs(share - energy) < Math.abs(curve[best] - energy)) best = k;
      });
      return best + 1;
    });
    const count = this.matrices(options.channels).length;
    return found.length === count ? found : Array(count).fill(found[0]);
  }

  matrixOfRank({ rows, columns, values, left, vectors, weights, sigma }, rank) {
    const count = sigma.length;
    if (rank >= count) return values;
    const drops = count - rank < rank, out = new Float64Array(rows * columns);
    const side = left ? rows : columns, other = left ? columns : rows;
    for (let i = drops ? rank : 0; i < (drops ? count : rank); i++) {
      for (let y = 0; y < rows; y++) {
        const at = y * columns;
        if (left) {
          const v = vectors[i * side + y], from = i * other;
          for (let x = 0; x < columns; x++) out[at + x] += v * weights[from + x];
        } else {
          const w = weights[i * other + y], from = i * side;
          for (let x = 0; x < columns; x++) out[at + x] += w * vectors[from + x];
        }
      }
    }
    if (drops) for (let i = 0; i < out.length; i++) out[i] = values[i] - out[i];
    return out;
  }

  // Bytes of the copy, row by row, channels together.
  rebuilt(ranks, channels) {
    const { rows, columns, colours } = this, n = rows * columns, found = new Uint8ClampedArray(n * colours);
    const matrices = this.matrices(channels);
    const parts = matrices.map((matrix, i) => this.matrixOfRank(matrix, ranks[i]));
    const put = (i, value) => { found[i] = Math.min(255, Math.max(0, rint(value))); };
    if (matrices.every(({ sigma }, i) => ranks[i] >= sigma.length)) return Uint8ClampedArray.from(this.pixels);
    if (channels === "joint") {
      for (let y = 0; y < rows; y++) for (let c = 0; c < colours; c++) for (let x = 0; x < columns; x++) {
        put((y * columns + x) * colours + c, parts[0][(y * colours + c) * columns + x]);
      }
    } else if (channels === "luma-chroma" && colours === 3) {
      for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) {
        put(3 * i + c, BACK[c][0] * parts[0][i] + BACK[c][1] * parts[1][i] + BACK[c][2] * parts[2][i]);
      }
    } else {
      for (let c = 0; c < colours; c++) for (let i = 0; i < n; i++) put(colours * i + c, parts[c][i]);
    }
    return found;
  }

  // What a copy is: bytes, ranks, how far it is from the image, what storing it would take.
  copy({ energy, rank, ...options }) {
    const matrices = this.matrices(options.channels);
    const ranks = rank === undefined ? this.ranks(energy, options)
      : matrices.map(({ sigma }) => Math.min(rank, sigma.length));
    const pixels = this.rebuilt(ranks, options.channels), n = pixels.length;
    let absolute = 0, squares = 0, whole = 0;
    for (let i = 0; i < n; i++) {
      const off = pixels[i] - this.pixels[i];
      absolute += Math.abs(off); squares += off * off; whole += this.pixels[i] ** 2;
    }
    const stored = matrices.reduce((sum, m, i) => sum + ranks[i] * (m.rows + m.columns + 1), 0);
    return {
      pixels, ranks, change: absolute / n, psnr: 10 * Math.log10(255 ** 2 / (squares / n)),
      error: whole > 0 ? Math.sqrt(squares / whole) : 0, compression: n / stored,
    };
  }

  // The largest energy that changes the image by so much on average, by halving; null if none does.
  energyFor(change, options) {
    let low = 2 ** -14, high = 1;
    if (this.copy({ energy: low, ...options }).change < change) return null;
    for (let step = 0; step < 14; step++) {
      const middle = (low + high) / 2;
      if (this.copy({ energy: middle, ...options }).change >= change) low = middle;
      else high = middle;
    }
    return low;
  }
}
